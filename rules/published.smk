"""
Published files: recordings, neuron masks and generations of models that others ran, as if they had been measured here.

REQUIRED INPUTS: the files that the config names for a model with `source: published`, or network for addresses.
OUTPUTS: results/<model>/activations/<language>.safetensors, results/<model>/neurons/published.parquet and .json,
    results/<model>/generations/<perturbation>/<language>.jsonl, whichever of them the files hold
"""


rule download_published:
    """
    Download one published file, once, and verify its checksum where the config gives one.
    """
    input:
        script=script("download_published"),
    output:
        "results/{model}/published/{file}",
    log:
        "results/logs/download_published/{model}.{file}.log",
    benchmark:
        "results/timings/download_published/{model}.{file}.tsv"
    wildcard_constraints:
        model=PUBLISHED,
        file="masks|(activations|generations)/.+",
    conda:
        "../envs/analysis.yaml"
    params:
        url=lambda wildcards: experiment.published_file(config, wildcards.model, wildcards.file).location,
        sha256=lambda wildcards: experiment.published_file(config, wildcards.model, wildcards.file).sha256,
    message:
        "Download {wildcards.file} of {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --url {params.url:q} \
            --sha256={params.sha256:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """


rule import_activations:
    """
    Check one language's published recording, and keep its counts in our format. Published recordings hold no sums.
    """
    input:
        recording=lambda wildcards: published_path(wildcards.model, f"activations/{wildcards.language}"),
        script=script("import_activations"),
        code=code("published.py", "neurons/counting.py"),
    output:
        "results/{model}/activations/{language}.safetensors",
    log:
        "results/logs/import_activations/{model}.{language}.log",
    benchmark:
        "results/timings/import_activations/{model}.{language}.tsv"
    wildcard_constraints:
        model=PUBLISHED,
    conda:
        "../envs/hf.yaml"
    params:
        shape=lambda wildcards: published_shape(wildcards.model),
        sha256=lambda wildcards: published_checksum(wildcards.model, f"activations/{wildcards.language}"),
    message:
        "Import the published recording of {wildcards.model} on {wildcards.language}."
    shell:
        r"""
        python {input.script:q} \
            --input {input.recording:q} \
            --language {wildcards.language:q} \
            {params.shape} \
            --sha256={params.sha256:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """


rule import_neurons:
    """
    Check a published neuron mask, and keep its neurons as a table. Its languages are those of the mask.
    """
    input:
        mask=lambda wildcards: published_path(wildcards.model, "masks"),
        recordings=lambda wildcards: recordings(wildcards.model),
        script=script("import_neurons"),
        code=code("published.py"),
    output:
        neurons="results/{model}/neurons/published.parquet",
        summary="results/{model}/neurons/published.json",
    log:
        "results/logs/import_neurons/{model}.log",
    benchmark:
        "results/timings/import_neurons/{model}.tsv"
    wildcard_constraints:
        model=PUBLISHED,
    conda:
        "../envs/hf.yaml"
    params:
        languages=lambda wildcards: config["models"][wildcards.model]["masks"]["languages"],
        shape=lambda wildcards: published_shape(wildcards.model),
        sha256=lambda wildcards: published_checksum(wildcards.model, "masks"),
    message:
        "Import the published neurons of {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --mask {input.mask:q} \
            --languages {params.languages:q} \
            --recordings {input.recordings:q} \
            {params.shape} \
            --sha256={params.sha256:q} \
            --output-neurons {output.neurons:q} \
            --output-summary {output.summary:q} \
            2>&1 | tee {log:q}
        """


# One job per model, since its files are compared with each other: all answer the same prompts.
for model in [name for name in MODELS if CONTENTS[name]["published"] and CONTENTS[name]["answered"]]:

    rule:
        """
        Check one model's published generations, and keep every answer as it was published.
        """
        name:
            f"import_generations_{model.replace('-', '_')}"
        input:
            generations=[file.path(model) for file in experiment.answers(config, model).values()],
            script=script("import_generations"),
            code=code("published.py"),
        output:
            answers_of(model),
        log:
            f"results/logs/import_generations/{model}.log",
        benchmark:
            f"results/timings/import_generations/{model}.tsv"
        conda:
            "../envs/analysis.yaml"
        params:
            perturbations=CONTENTS[model]["answered"],
            languages=LANGUAGES,
            sha256=constant([file.sha256 for file in experiment.answers(config, model).values()]),
        message:
            f"Import the published answers of {model}."
        shell:
            r"""
            python {input.script:q} \
                --perturbations {params.perturbations:q} \
                --languages {params.languages:q} \
                --inputs {input.generations:q} \
                --sha256 {params.sha256:q} \
                --outputs {output:q} \
                2>&1 | tee {log:q}
            """
