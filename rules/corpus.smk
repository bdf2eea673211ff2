"""
Text: documents of each language, as packed windows of each model's tokens.

REQUIRED INPUTS: the language's text files, or network for Wikipedia; the model's tokenizer.
OUTPUTS: results/<model>/tokens/<language>.<split>.safetensors for train, valid and test. No document is in two splits.
"""


rule tokenize_corpus:
    """
    Split one language's documents into train, valid and test, tokenize them with one model's tokenizer, and pack each split
    into windows of equal length, without padding, up to the token budget.
    """
    input:
        text=corpus_files,
        model=model_files,
        script=script("tokenize_corpus"),
        code=CORPUS_CODE + code("models/layouts.py", "models/tokenizer.py"),
    output:
        expand(
            "results/{{model}}/tokens/{{language}}.{split}.safetensors",
            split=experiment.SPLITS,
        ),
    log:
        "results/logs/tokenize_corpus/{model}.{language}.log",
    benchmark:
        "results/timings/tokenize_corpus/{model}.{language}.tsv"
    wildcard_constraints:
        model=OWN,
    conda:
        "../envs/hf.yaml"
    resources:
        **cluster("tokens"),
    params:
        model=lambda wildcards: experiment.canonical(experiment.tokenizer_settings(config, wildcards.model)),
        source=lambda wildcards: experiment.canonical(experiment.corpus(config, wildcards.language)),
        window=lambda wildcards: experiment.window(config, wildcards.model),
        tokens=lambda wildcards: experiment.canonical(experiment.tokens(config, wildcards.language)),
        share=constant(config["corpora"]["share"]),
        seed=config["seed"],
    message:
        "Tokenize {wildcards.language} for {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --model {params.model:q} \
            --language {wildcards.language:q} \
            --source {params.source:q} \
            --window {params.window} \
            --tokens {params.tokens:q} \
            --share {params.share:q} \
            --seed {params.seed} \
            --outputs {output:q} \
            2>&1 | tee {log:q}
        """
