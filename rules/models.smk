"""
Models: demo models, trained from scratch on the training split of their languages' text, and models of the hub.

REQUIRED INPUTS: for a demo model the text of its `languages` (by default the embedded corpus); for a hub model network,
    here alone. Its weights go into the hub's cache (environment variable HF_HOME), which all jobs must be able to read.
OUTPUTS: results/<model>/model/, an ordinary transformers folder with its tokenizer;
    results/<model>/download.json, the commit of a hub model, and its files with their sizes.
"""


rule train_demo_model:
    """
    Train a demo model from scratch: a byte-level BPE tokenizer and a causal language model, on equal shares of the training
    documents of each of its languages.
    """
    input:
        text=training_files,
        script=script("train_demo_model"),
        code=CORPUS_CODE + code("demo/muon.py", "demo/training.py"),
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
    resources:
        **cluster("training"),
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


rule download_model:
    """
    Download a model of the hub into the hub's cache, once: its configuration, which must be of a known family, its
    tokenizer and its weights. All other jobs read them there, without network.
    """
    input:
        script=ancient(script("download_model")),
    output:
        "results/{model}/download.json",
    log:
        "results/logs/download_model/{model}.log",
    benchmark:
        "results/timings/download_model/{model}.tsv"
    wildcard_constraints:
        model=one_of(experiment.hub_models(config)),
    conda:
        "../envs/hf.yaml"
    params:
        id=lambda wildcards: config["models"][wildcards.model]["id"],
        revision=lambda wildcards: config["models"][wildcards.model]["revision"],
    message:
        "Download {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --model {params.id:q} \
            --revision {params.revision:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """
