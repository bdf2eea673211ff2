"""
Demo models: tiny models trained from scratch on the training split of their languages' text.

REQUIRED INPUTS: the text of the model's `languages` (by default the embedded corpus).
OUTPUTS: results/<model>/model/, an ordinary transformers folder with its tokenizer.
"""


rule train_demo_model:
    """
    Train a demo model from scratch: a byte-level BPE tokenizer and a causal language model, on equal shares of the training
    documents of each of its languages.
    """
    input:
        text=training_files,
        script=script("train_demo_model"),
        code=CORPUS_CODE + code("demo/training.py"),
    output:
        expand("results/{{model}}/model/{file}", file=experiment.DEMO_MODEL_FILES),
    log:
        "results/logs/train_demo_model/{model}.log",
    benchmark:
        "results/timings/train_demo_model/{model}.tsv"
    wildcard_constraints:
        model=one_of(experiment.demo_models(config)),
    conda:
        "../envs/hf.yaml"
    threads: machine("threads")
    params:
        settings=lambda wildcards: experiment.canonical(experiment.training_settings(config, wildcards.model)),
        sources=lambda wildcards: experiment.canonical(experiment.training_sources(config, wildcards.model)),
        share=constant(config["corpora"]["share"]),
        seed=lambda wildcards: experiment.training_seed(config, wildcards.model),
        folder=lambda wildcards: f"results/{wildcards.model}/model",
    message:
        "Train {wildcards.model} from scratch."
    shell:
        r"""
        python {input.script:q} \
            --settings {params.settings:q} \
            --sources {params.sources:q} \
            --share {params.share:q} \
            --seed {params.seed} \
            --threads {threads} \
            --output {params.folder:q} \
            2>&1 | tee {log:q}
        """
