"""
Neurons: which of them are specific to a language.

REQUIRED INPUTS: results/<model>/activations/<language>.safetensors of all languages, since the selection is joint; for
    methods that compare single sentences also results/<model>/sentences/<language>.safetensors
OUTPUTS: results/<model>/neurons/<method>.parquet and .json; on request, the same neurons for other programs as
    results/<model>/neurons/<method>.pth (a mask in the published format) and .csv
"""


rule identify_neurons:
    """
    Select one model's language-specific neurons. By LAPE: those with the lowest entropy of their activation probabilities
    across languages, among those whose probability exceeds the bar in some language; a neuron belongs to every language in
    which it does. By other methods: for each language as many, ranked by the method's score.
    """
    input:
        activations=expand("results/{{model}}/activations/{language}.safetensors", language=LANGUAGES),
        sentences=lambda wildcards: sentences_of(wildcards.model, wildcards.method),
        script=script("identify_neurons"),
        code=code(
            "neurons/methods.py",
            "neurons/lape.py",
            "neurons/difference.py",
            "neurons/precision.py",
            "neurons/probe.py",
            "neurons/counting.py",
            "neurons/sentences.py",
        ),
    output:
        neurons="results/{model}/neurons/{method}.parquet",
        summary="results/{model}/neurons/{method}.json",
    log:
        "results/logs/identify_neurons/{model}.{method}.log",
    benchmark:
        "results/timings/identify_neurons/{model}.{method}.tsv"
    wildcard_constraints:
        method=one_of(SELECTIONS),
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("neurons"),
    params:
        method=lambda wildcards: SELECTIONS[wildcards.method]["method"],
        top_rate=lambda wildcards: SELECTIONS[wildcards.method]["top_rate"],
        activation_percentile=config["identification"]["activation_percentile"],
        options=lambda wildcards: method_options(SELECTIONS[wildcards.method]["method"]),
    message:
        "Identify the language-specific neurons of {wildcards.model} ({wildcards.method})."
    shell:
        r"""
        python {input.script:q} \
            --method {params.method} \
            --activations {input.activations:q} \
            --sentences {input.sentences:q} \
            --top-rate {params.top_rate} \
            --activation-percentile {params.activation_percentile} \
            {params.options} \
            --output-neurons {output.neurons:q} \
            --output-summary {output.summary:q} \
            2>&1 | tee {log:q}
        """


rule export_neurons:
    """
    Write selected neurons as others publish and read them: a mask of lists of tensors, and a table as CSV. Nothing here
    needs them; ask for them by name.
    """
    input:
        neurons="results/{model}/neurons/{method}.parquet",
        script=script("export_published"),
        code=PUBLISHED_CODE
        + code("published/activations.py", "published/generations.py", "published/masks.py", "neurons/counting.py"),
    output:
        mask="results/{model}/neurons/{method}.pth",
        table="results/{model}/neurons/{method}.csv",
    log:
        "results/logs/export_neurons/{model}.{method}.log",
    benchmark:
        "results/timings/export_neurons/{model}.{method}.tsv"
    wildcard_constraints:
        method=one_of([*SELECTIONS, experiment.PUBLISHED]),
    conda:
        "../envs/hf.yaml"
    resources:
        **cluster("neurons"),
    params:
        languages=lambda wildcards: languages_of(wildcards.model, wildcards.method),
    message:
        "Export the neurons of {wildcards.model} ({wildcards.method})."
    shell:
        r"""
        (
            python {input.script:q} --neurons {input.neurons:q} --output {output.table:q}
            python {input.script:q} --neurons {input.neurons:q} --languages {params.languages:q} --output {output.mask:q}
        ) 2>&1 | tee {log:q}
        """
