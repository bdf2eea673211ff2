"""
Perplexity: how well the model predicts held-out text of every language under each perturbation.

REQUIRED INPUTS: results/<model>/perturbations/<perturbation>.parquet, results/<model>/tokens/<language>.<split>.safetensors
OUTPUTS: results/<model>/perplexity/<perturbation>/<language>.parquet, one row per window;
    results/<model>/perplexity/<job>.json, the manifest of what a job measured;
    results/<model>/effects/<perturbation>.json, the proof that the perturbation took effect;
    results/<model>/metrics/perplexity.parquet, all windows together.
"""

# One job per model and perturbation family: the model is loaded once, and what goes stale together is computed together.
for one, job in product(own_models(), variants.jobs(config, variants.PERPLEXITY)):

    rule:
        """
        Prove that each perturbation of a family takes effect, then read held-out windows of every language under it and sum
        the negative log-likelihood of each window.
        """
        name:
            f"measure_perplexity_{job.identifier}_of_{variants.identifier(one.model)}"
        input:
            interventions=expand(
                f"results/{one.model}/perturbations/{{perturbation}}.parquet",
                perturbation=job.edits,
            ),
            tokens=tokens_of(one.model, config["perplexity"]["split"]),
            model=model_files(one),
            script=script("measure_perplexity"),
            code=ENGINE_CODE,
            engine=engine_code(one),
        output:
            manifest=measured.manifest(one.model, variants.PERPLEXITY, job),
            windows=MEASUREMENTS.outputs(one.model, variants.PERPLEXITY, job),
            effects=expand(f"results/{one.model}/effects/{{perturbation}}.json", perturbation=job.edits),
        log:
            f"results/logs/measure_perplexity/{one.model}.{job.name}.log",
        benchmark:
            f"results/timings/measure_perplexity/{one.model}.{job.name}.tsv"
        conda:
            engine_environment(one)
        threads: machine("threads")(one)
        resources:
            **cluster("perplexity", machine("gpus"), one),
            gpu=machine("gpus")(one),
            batch_size=machine("batch_size")(one),
        params:
            model=constant(experiment.measuring_settings(config, one.model)),
            languages=LANGUAGES,
        message:
            f"Measure the perplexity of {one.model} on {', '.join(LANGUAGES)}: {job.name}."
        shell:
            r"""
            HF_HUB_OFFLINE=1 python {input.script:q} \
                --model {params.model:q} \
                --gpus {resources.gpu} \
                --threads {threads} \
                --batch-size {resources.batch_size} \
                --interventions {input.interventions:q} \
                --tokens {input.tokens:q} \
                --languages {params.languages:q} \
                --output-manifest {output.manifest:q} \
                --output-effects {output.effects:q} \
                2>&1 | tee {log:q}
            """


rule score_perplexity:
    """
    Gather one model's windows of all perturbations and languages.
    """
    input:
        windows=lambda wildcards: MEASUREMENTS.inputs(wildcards.model, variants.PERPLEXITY),
        script=script("score_perplexity"),
    output:
        "results/{model}/metrics/perplexity.parquet",
    log:
        "results/logs/score_perplexity/{model}.log",
    benchmark:
        "results/timings/score_perplexity/{model}.tsv"
    wildcard_constraints:
        model=OWN,
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("analysis"),
    params:
        perturbations=READ,
        languages=LANGUAGES,
    message:
        "Gather the perplexities of {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --perturbations {params.perturbations:q} \
            --languages {params.languages:q} \
            --windows results/{wildcards.model}/perplexity \
            --output {output:q} \
            2>&1 | tee {log:q}
        """
