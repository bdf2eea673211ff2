"""
Activations: how often and how strongly every FFN neuron is active on each language.

REQUIRED INPUTS: results/<model>/tokens/<language>.<split>.safetensors
OUTPUTS: results/<model>/activations/<language>.safetensors, with `recording.shards` from several jobs;
    results/<model>/sentences/<language>.safetensors, for methods that compare single sentences
"""


rule record_activations:
    """
    Run one model over one language's windows and record, for every FFN neuron, on how many tokens its activation is above
    zero, the sums of its activation and of its product with the up projection, and the sum of the hidden states. With
    `recording.shards` add up what the jobs of `record_shard` recorded of parts of the windows; the numbers are the same.
    """
    input:
        shards=shards_of,
        tokens=f"results/{{model}}/tokens/{{language}}.{config['recording']['split']}.safetensors",
        model=model_files,
        script=script("record_activations"),
        code=ENGINE_CODE,
        engine=engine_code,
    output:
        "results/{model}/activations/{language}.safetensors",
    log:
        "results/logs/record_activations/{model}.{language}.log",
    benchmark:
        "results/timings/record_activations/{model}.{language}.tsv"
    wildcard_constraints:
        model=OWN,
    conda:
        engine_environment
    threads: machine("threads")
    resources:
        **cluster("recording", recording_gpus),
        gpu=recording_gpus,
        batch_size=machine("batch_size"),
    params:
        model=engine_params,
        sums=constant(config["recording"]["sums"]),
        shard="",
    message:
        "Record the activations of {wildcards.model} on {wildcards.language}."
    shell:
        r"""
        HF_HUB_OFFLINE=1 python {input.script:q} \
            --model {params.model:q} \
            --gpus {resources.gpu} \
            --threads {threads} \
            --batch-size {resources.batch_size} \
            --tokens {input.tokens:q} \
            --sums {params.sums} \
            {params.shard} \
            --shards {input.shards:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """


use rule record_activations as record_shard with:
    input:
        shards=[],
        tokens=rules.record_activations.input.tokens,
        model=model_files,
        script=script("record_activations"),
        code=ENGINE_CODE,
        engine=engine_code,
    output:
        temp("results/{model}/activations/shards/{language}.{shard}-of-{shards}.safetensors"),
    log:
        "results/logs/record_shard/{model}.{language}.{shard}-of-{shards}.log",
    benchmark:
        "results/timings/record_shard/{model}.{language}.{shard}-of-{shards}.tsv"
    wildcard_constraints:
        model=OWN,
        shard="[0-9]+",
        shards="[0-9]+",
    params:
        model=engine_params,
        sums=constant(config["recording"]["sums"]),
        shard="--shard {shard} {shards}",
    message:
        "Record the activations of {wildcards.model} on {wildcards.language}, shard {wildcards.shard} of {wildcards.shards}."


for one in own_models():

    rule:
        """
        Run one model over sentences of every language and record every FFN neuron's mean activation on each.
        """
        name:
            f"record_sentences_of_{variants.identifier(one.model)}"
        input:
            tokens=tokens_of(one.model, config["recording"]["split"]),
            model=model_files(one),
            script=script("record_sentences"),
            code=ENGINE_CODE,
            engine=engine_code(one),
        output:
            expand(f"results/{one.model}/sentences/{{language}}.safetensors", language=LANGUAGES),
        log:
            f"results/logs/record_sentences/{one.model}.log",
        benchmark:
            f"results/timings/record_sentences/{one.model}.tsv"
        conda:
            engine_environment(one)
        threads: machine("threads")(one)
        resources:
            **cluster("sentences", machine("gpus"), one),
            gpu=machine("gpus")(one),
            batch_size=machine("batch_size")(one),
        params:
            model=constant(experiment.engine_settings(config, one.model)),
            sentences=config["identification"]["sentences"],
        message:
            f"Record {one.model} on sentences in {', '.join(LANGUAGES)}."
        shell:
            r"""
            HF_HUB_OFFLINE=1 python {input.script:q} \
                --model {params.model:q} \
                --gpus {resources.gpu} \
                --threads {threads} \
                --batch-size {resources.batch_size} \
                --tokens {input.tokens:q} \
                --sentences {params.sentences} \
                --outputs {output:q} \
                2>&1 | tee {log:q}
            """
