"""
Perturbations: which neurons are edited and how, one file per perturbation.

REQUIRED INPUTS: results/<model>/neurons/<method>.parquet; for steering and for controls matched on activity also
    results/<model>/activations/<language>.safetensors of all languages
OUTPUTS: results/<model>/perturbations/<perturbation>.parquet. The baseline `none` has no file.
"""

# One job per model and family: a variant of the config with all values of its sweep.
for one, (family, members) in product(own_models(), variants.families(config).items()):

    rule:
        """
        For each language, plan how its neurons are switched off, or on: set to, or raised by, a multiple of their mean
        activation on that language. As a control, draw as many neurons of the same layers from outside every language's
        set, or those that are about as often active, for the same edit. For a shift of the residual stream, take the
        language's mean hidden state minus that of the others.
        """
        name:
            f"plan_{variants.identifier(family)}_of_{variants.identifier(one.model)}"
        input:
            neurons=expand(
                f"results/{one.model}/neurons/{{selection}}.parquet",
                selection=variants.plan_selections(config, family),
            ),
            activations=expand(
                f"results/{one.model}/activations/{{language}}.safetensors",
                language=LANGUAGES if variants.plan_needs_activations(config, family) else [],
            ),
            script=script("plan_perturbations"),
            code=code("interventions.py", "planning.py", "neurons/controls.py", "neurons/counting.py"),
        output:
            expand(
                f"results/{one.model}/perturbations/{{perturbation}}.parquet",
                perturbation=[name for variant in members for name in variants.member_ids(config, variant)],
            ),
        log:
            f"results/logs/plan_perturbations/{one.model}.{family}.log",
        benchmark:
            f"results/timings/plan_perturbations/{one.model}.{family}.tsv"
        conda:
            "../envs/analysis.yaml"
        resources:
            **cluster("neurons", model=one),
        params:
            members=constant(variants.plans(config, family, one.model)),
            seed=config["seed"],
        message:
            f"Plan the perturbations '{family}' of {one.model}."
        shell:
            r"""
            python {input.script:q} \
                --neurons {input.neurons:q} \
                --activations {input.activations:q} \
                --members {params.members:q} \
                --seed {params.seed} \
                --outputs {output:q} \
                2>&1 | tee {log:q}
            """
