"""
Generation: how the model answers questions in every language under each perturbation.

REQUIRED INPUTS: results/<model>/perturbations/<perturbation>.parquet; question files;
    results/<model>/tokens/<language>.<split>.safetensors, on which each perturbation is proved.
OUTPUTS: results/<model>/prompts.json, the tokens of every question;
    results/<model>/generations/<perturbation>/<language>.jsonl, one answer per line;
    results/<model>/generations/<job>.json, the manifest of what a job answered;
    results/<model>/effects/<perturbation>.json, the proof that it took effect, where no perplexity is measured under it;
    results/<model>/metrics/text.parquet, every answer measured;
    results/<model>/metrics/stop_words.parquet, stop words of every list in answers of every language;
    results/<model>/metrics/relevance.parquet, where the config names a model that judges answers.
"""


rule check_prompts:
    """
    Tokenize every question for one model, and check that it fits the model's context together with the longest answer:
    before any weights are loaded.
    """
    input:
        prompts=prompt_files(),
        model=model_files,
        script=script("check_prompts"),
        code=code(
            "corpus/prompts.py",
            "corpus/sentences.py",
            "corpus/textfiles.py",
            "engines/base.py",
            "engines/limits.py",
            "interventions.py",
            "models/layouts.py",
            "models/tokenizer.py",
            "neurons/counting.py",
            "neurons/sentences.py",
            "sizes.py",
        ),
    output:
        "results/{model}/prompts.json",
    log:
        "results/logs/check_prompts/{model}.log",
    benchmark:
        "results/timings/check_prompts/{model}.tsv"
    wildcard_constraints:
        model=OWN,
    conda:
        "../envs/hf.yaml"
    resources:
        **cluster("tokens"),
    params:
        model=lambda wildcards: experiment.canonical(experiment.tokenizer_settings(config, wildcards.model)),
        languages=LANGUAGES,
        settings=constant(experiment.prompt_settings(config)),
    message:
        "Check that the questions fit {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --model {params.model:q} \
            --languages {params.languages:q} \
            --prompts {input.prompts:q} \
            --settings {params.settings:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """


# One job per model and perturbation family, as for perplexity.
for one, job in product(own_models(), variants.jobs(config, variants.ANSWERS)):

    rule:
        """
        Prove that each perturbation of a family takes effect, then answer every language's questions under it.
        """
        name:
            f"generate_text_{job.identifier}_of_{variants.identifier(one.model)}"
        input:
            interventions=expand(
                f"results/{one.model}/perturbations/{{perturbation}}.parquet",
                perturbation=job.edits,
            ),
            tokens=tokens_of(one.model, config["perplexity"]["split"]),
            prompts=prompt_files(),
            fitting=f"results/{one.model}/prompts.json",
            model=model_files(one),
            script=script("generate_text"),
            code=ENGINE_CODE + code("corpus/prompts.py", "corpus/textfiles.py"),
            engine=engine_code(one),
        output:
            manifest=measured.manifest(one.model, variants.ANSWERS, job),
            answers=MEASUREMENTS.outputs(one.model, variants.ANSWERS, job),
            effects=expand(
                f"results/{one.model}/effects/{{perturbation}}.json",
                perturbation=[name for name in job.edits if name not in READ],
            ),
        log:
            f"results/logs/generate_text/{one.model}.{job.name}.log",
        benchmark:
            f"results/timings/generate_text/{one.model}.{job.name}.tsv"
        conda:
            engine_environment(one)
        threads: machine("threads")(one)
        resources:
            **cluster("answers", machine("gpus"), one),
            gpu=machine("gpus")(one),
            batch_size=machine("generation_batch_size")(one),
        params:
            model=constant(experiment.measuring_settings(config, one.model)),
            languages=LANGUAGES,
            settings=constant(experiment.generation_settings(config)),
            seed=config["seed"],
        message:
            f"Answer the questions in {', '.join(LANGUAGES)} with {one.model}: {job.name}."
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
                --prompts {input.prompts:q} \
                --settings {params.settings:q} \
                --seed {params.seed} \
                --output-manifest {output.manifest:q} \
                --output-effects {output.effects:q} \
                2>&1 | tee {log:q}
            """


rule score_text:
    """
    Measure every answer of one model: output language by two identifiers, length, stop words, copying of the question,
    repetition, sameness with the baseline.
    """
    input:
        generations=lambda wildcards: MEASUREMENTS.inputs(wildcards.model, variants.ANSWERS),
        lists=without_braces(experiment.stop_word_files(config)),
        script=script("score_text"),
        code=TEXT_CODE,
    output:
        text="results/{model}/metrics/text.parquet",
        stop_words="results/{model}/metrics/stop_words.parquet",
    log:
        "results/logs/score_text/{model}.log",
    benchmark:
        "results/timings/score_text/{model}.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("analysis"),
    params:
        perturbations=lambda wildcards: CONTENTS[wildcards.model]["answered"],
        languages=LANGUAGES,
        stop_words=constant(config["metrics"]["stop_words"]),
        identifiers=config["metrics"]["identifiers"],
        threshold=config["metrics"]["confidence"],
    message:
        "Measure the answers of {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --perturbations {params.perturbations:q} \
            --languages {params.languages:q} \
            --generations results/{wildcards.model}/generations \
            --stop-words {params.stop_words:q} \
            --identifiers {params.identifiers:q} \
            --threshold {params.threshold} \
            --output {output.text:q} \
            --output-matrix {output.stop_words:q} \
            2>&1 | tee {log:q}
        """


rule score_relevance:
    """
    Score how well each answer of one model addresses its question: by the similarity of their embeddings, or by a model
    that judges.
    """
    input:
        text="results/{model}/metrics/text.parquet",
        scorer=without_braces(or_workflow_error(experiment.relevance_files, config)),
        script=script("score_relevance"),
        code=code("models/relevance.py", "models/layouts.py", "models/folders.py", "models/tokenizer.py"),
    output:
        "results/{model}/metrics/relevance.parquet",
    log:
        "results/logs/score_relevance/{model}.log",
    benchmark:
        "results/timings/score_relevance/{model}.tsv"
    conda:
        "../envs/hf.yaml"
    threads: RELEVANCE["threads"]
    resources:
        **cluster("relevance", lambda wildcards: RELEVANCE["gpus"]),
        gpu=RELEVANCE["gpus"],
        batch_size=RELEVANCE["batch_size"],
    params:
        settings=constant(experiment.relevance_settings(config)),
    message:
        "Score how well the answers of {wildcards.model} address the questions."
    shell:
        r"""
        python {input.script:q} \
            --settings {params.settings:q} \
            --text {input.text:q} \
            --gpus {resources.gpu} \
            --threads {threads} \
            --batch-size {resources.batch_size} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """
