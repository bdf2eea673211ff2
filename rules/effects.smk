"""
Effects: how sure the differences are, to the unperturbed model and to random controls, and how firm the neurons.

REQUIRED INPUTS: results/<model>/metrics/perplexity.parquet, results/<model>/metrics/text.parquet;
    results/<model>/activations/<language>.safetensors
OUTPUTS: results/<model>/metrics/effects.parquet, results/<model>/metrics/stability.parquet
"""


rule test_effects:
    """
    For each perturbation, language and measure: the mean paired difference to the baseline and to the mean of the random
    draws, over windows or prompts, with a bootstrap interval and a permutation test: sign flips
    against the baseline, exchanges of the draws against a control.
    """
    input:
        measured=lambda wildcards: metrics(wildcards.model, "perplexity", "text", "relevance"),
        script=script("test_effects"),
        code=code("metrics/effects.py", "metrics/statistics.py", "metrics/language.py"),
    output:
        "results/{model}/metrics/effects.parquet",
    log:
        "results/logs/test_effects/{model}.log",
    benchmark:
        "results/timings/test_effects/{model}.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("analysis"),
    params:
        measured=lambda wildcards: " ".join(
            f"--{Path(path).stem} {shlex.quote(path)}"
            for path in metrics(wildcards.model, "perplexity", "text", "relevance")
        ),
        perturbations=constant(variants.describe_all(config)),
        seed=config["seed"],
    message:
        "Test the effects in {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            {params.measured} \
            --perturbations {params.perturbations:q} \
            --seed {params.seed} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """


rule test_stability:
    """
    Select one model's neurons again by LAPE from either half of the recorded text, from half of it and from a quarter, and
    count how many are the same.
    """
    input:
        activations=lambda wildcards: recordings(wildcards.model),
        script=script("test_stability"),
        code=code("neurons/stability.py", "neurons/lape.py", "neurons/counting.py"),
    output:
        "results/{model}/metrics/stability.parquet",
    log:
        "results/logs/test_stability/{model}.log",
    benchmark:
        "results/timings/test_stability/{model}.tsv"
    wildcard_constraints:
        model=OWN,
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("neurons"),
    params:
        top_rate=config["identification"]["top_rate"],
        activation_percentile=config["identification"]["activation_percentile"],
    message:
        "Test how firm the selection of neurons in {wildcards.model} is."
    shell:
        r"""
        python {input.script:q} \
            --activations {input.activations:q} \
            --top-rate {params.top_rate} \
            --activation-percentile {params.activation_percentile} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """
