"""
Perturbations: which neurons are edited and how, one file per perturbation.

REQUIRED INPUTS: results/<model>/neurons/<method>.parquet
OUTPUTS: results/<model>/perturbations/<perturbation>.parquet. The baseline `none` has no file.
"""

for variant in config["run"]["perturbations"]:

    rule:
        """
        For each language, switch its neurons off; or, as a control, as many neurons of the same layers drawn at random from
        outside every language's set.
        """
        name:
            f"plan_{variant.replace('-', '_')}"
        input:
            neurons=f"results/{{model}}/neurons/{experiment.selection(config, variant)}.parquet",
            script=script("plan_perturbations"),
            code=code("interventions.py", "neurons/controls.py"),
        output:
            expand(
                "results/{{model}}/perturbations/{perturbation}.parquet",
                perturbation=experiment.member_ids(config, variant),
            ),
        log:
            f"results/logs/plan_perturbations/{{model}}.{variant}.log",
        benchmark:
            f"results/timings/plan_perturbations/{{model}}.{variant}.tsv"
        wildcard_constraints:
            model=OWN,
        conda:
            "../envs/analysis.yaml"
        params:
            kind=config["perturbations"][variant]["kind"],
            site=config["perturbations"][variant]["site"],
            members=constant(experiment.describe(config, variant)),
            seed=config["seed"],
        message:
            f"Plan the perturbations '{variant}' of {{wildcards.model}}."
        shell:
            r"""
            python {input.script:q} \
                --neurons {input.neurons:q} \
                --kind {params.kind} \
                --site {params.site} \
                --members {params.members:q} \
                --seed {params.seed} \
                --outputs {output:q} \
                2>&1 | tee {log:q}
            """
