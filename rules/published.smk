"""
Published files: recordings, neuron masks and generations of models that others ran, as if they had been measured here.

REQUIRED INPUTS: the files that the config names for a model with `source: published`, or network for addresses.
OUTPUTS: results/<model>/published/, what is downloaded; and whichever of these the files hold:
    results/<model>/activations/<language>.safetensors, results/<model>/neurons/published.parquet and .json,
    results/<model>/generations/<perturbation>/<language>.jsonl
"""


rule download_published:
    """
    Download one published file, once, and verify its checksum where the config gives one. A file that is there already
    and has the checksum is kept.
    """
    input:
        script=ancient(script("download_published")),
    output:
        update("results/{model}/published/{file}"),
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
        url=lambda wildcards: published_file(wildcards.model, wildcards.file).location,
        sha256=lambda wildcards: published_checksum(wildcards.model, wildcards.file),
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
    Check one model's published recordings, and keep their counts in our format. They hold no sums.
    """
    input:
        recordings=lambda wildcards: [
            published_path(wildcards.model, f"activations/{language}") for language in LANGUAGES
        ],
        script=script("import_activations"),
        code=PUBLISHED_CODE + code("published/activations.py", "neurons/counting.py"),
    output:
        expand("results/{{model}}/activations/{language}.safetensors", language=LANGUAGES),
    log:
        "results/logs/import_activations/{model}.log",
    benchmark:
        "results/timings/import_activations/{model}.tsv"
    wildcard_constraints:
        model=PUBLISHED,
    conda:
        "../envs/hf.yaml"
    resources:
        **cluster("analysis"),
    params:
        languages=LANGUAGES,
        shape=lambda wildcards: published_shape(wildcards.model),
        sha256=lambda wildcards: experiment.canonical(
            {language: published_checksum(wildcards.model, f"activations/{language}") for language in LANGUAGES}
        ),
    message:
        "Import the published recordings of {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --inputs {input.recordings:q} \
            --languages {params.languages:q} \
            {params.shape} \
            --sha256 {params.sha256:q} \
            --outputs {output:q} \
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
        code=PUBLISHED_CODE + code("published/masks.py", "published/activations.py", "neurons/counting.py"),
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
    resources:
        **cluster("analysis"),
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
            generations=lambda wildcards, model=model: without_braces(
                file.path(model) for file in experiment.answers(config, model).values()
            ),
            script=script("import_generations"),
            code=PUBLISHED_CODE + code("published/generations.py"),
        output:
            MEASUREMENTS.files(model, variants.ANSWERS),
        log:
            f"results/logs/import_generations/{model}.log",
        benchmark:
            f"results/timings/import_generations/{model}.tsv"
        conda:
            "../envs/analysis.yaml"
        resources:
            **cluster("analysis"),
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
