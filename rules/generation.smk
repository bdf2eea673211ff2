"""
Generation: how the model answers questions in every language under each perturbation.

REQUIRED INPUTS: results/<model>/perturbations/<perturbation>.parquet; question files;
    results/<model>/tokens/<language>.<split>.safetensors, on which each perturbation is proved.
OUTPUTS: results/<model>/generations/<perturbation>/<language>.jsonl, one answer per line;
    results/<model>/metrics/text.parquet, every answer measured.
"""

# One job per perturbation family, as for perplexity.
for job in experiment.jobs(config):

    rule:
        """
        Prove that each perturbation of a family takes effect, then answer every language's questions under it.
        """
        name:
            f"generate_text_{job.identifier}"
        input:
            interventions=expand(
                "results/{{model}}/perturbations/{perturbation}.parquet",
                perturbation=job.edits,
            ),
            tokens=expand(
                "results/{{model}}/tokens/{language}.{split}.safetensors",
                language=LANGUAGES,
                split=config["perplexity"]["split"],
            ),
            prompts=prompt_files(),
            model=model_files,
            script=script("generate_text"),
            code=ENGINE_CODE + code("corpus/prompts.py"),
        output:
            expand(
                "results/{{model}}/generations/{perturbation}/{language}.jsonl",
                perturbation=job.members,
                language=LANGUAGES,
            ),
        log:
            f"results/logs/generate_text/{{model}}.{job.name}.log",
        benchmark:
            f"results/timings/generate_text/{{model}}.{job.name}.tsv"
        wildcard_constraints:
            model=OWN,
        conda:
            "../envs/hf.yaml"
        threads: machine("threads")
        resources:
            gpu=machine("gpus"),
            batch_size=machine("generation_batch_size"),
        params:
            model=engine_params,
            languages=LANGUAGES,
            settings=constant(experiment.generation_settings(config)),
            seed=config["seed"],
        message:
            f"Answer the questions in {', '.join(LANGUAGES)} with {{wildcards.model}}: {job.name}."
        shell:
            r"""
            python {input.script:q} \
                --model {params.model:q} \
                --gpus {resources.gpu} \
                --threads {threads} \
                --batch-size {resources.batch_size} \
                --interventions {input.interventions:q} \
                --tokens {input.tokens:q} \
                --languages {params.languages:q} \
                --prompts {input.prompts:q} \
                --settings {params.settings:q} \
                --seed {params.seed} \
                --outputs {output:q} \
                2>&1 | tee {log:q}
            """


rule score_text:
    """
    Measure every answer of one model: length, stop words, output language, sameness with the baseline.
    """
    input:
        generations=lambda wildcards: answers_of(wildcards.model),
        lists=experiment.stop_word_files(config),
        script=script("score_text"),
        code=code("metrics/text.py", "metrics/language.py"),
    output:
        "results/{model}/metrics/text.parquet",
    log:
        "results/logs/score_text/{model}.log",
    benchmark:
        "results/timings/score_text/{model}.tsv"
    conda:
        "../envs/analysis.yaml"
    params:
        perturbations=lambda wildcards: CONTENTS[wildcards.model]["answered"],
        languages=LANGUAGES,
        stop_words=constant(config["metrics"]["stop_words"]),
    message:
        "Measure the answers of {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --perturbations {params.perturbations:q} \
            --languages {params.languages:q} \
            --generations {input.generations:q} \
            --stop-words {params.stop_words:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """
