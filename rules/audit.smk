"""
Audit: whether the numbers can be trusted. What went wrong in others' experiments is looked for in every model's results.

REQUIRED INPUTS: whatever there is of a model: recordings, neurons, metrics, proofs of effect.
OUTPUTS: results/<model>/audit.json, every check and what it found; results/report/audit.txt, once no own model has a
    fatal finding
"""


rule audit_results:
    """
    Look for perturbations that did nothing, an identification on one language, counted padding, impossible numbers,
    answers that are not in the prompt's language, unequal amounts of text, and neurons that half of the text does not
    confirm.
    """
    input:
        measurements=lambda wildcards: measurements(wildcards.model),
        script=script("audit_results"),
        code=code(
            "audit/checks.py",
            "audit/copies.py",
            "audit/effect.py",
            "audit/evidence.py",
            "audit/texts.py",
            "corpus/shares.py",
            "neurons/lape.py",
            "neurons/counting.py",
            "metrics/language.py",
        ),
    output:
        "results/{model}/audit.json",
    log:
        "results/logs/audit_results/{model}.log",
    benchmark:
        "results/timings/audit_results/{model}.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("analysis"),
    params:
        contents=lambda wildcards: constant(CONTENTS[wildcards.model])(wildcards),
        perturbations=constant(variants.describe_all(config)),
        languages=LANGUAGES,
        identification=constant({key: config["identification"][key] for key in ("top_rate", "activation_percentile")}),
    message:
        "Audit the results of {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --results results/{wildcards.model} \
            --contents {params.contents:q} \
            --perturbations {params.perturbations:q} \
            --languages {params.languages:q} \
            --identification {params.identification:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """


rule check_audit:
    """
    End the run with an error if the audit of an own model found that its numbers cannot be true. The report is there
    all the same.
    """
    input:
        report="results/report/report.html",
        audits=expand("results/{model}/audit.json", model=MODELS),
        script=script("check_audit"),
    output:
        "results/report/audit.txt",
    log:
        "results/logs/check_audit.log",
    benchmark:
        "results/timings/check_audit.tsv"
    conda:
        "../envs/analysis.yaml"
    params:
        models=MODELS,
        published=[model for model in MODELS if CONTENTS[model]["published"]],
    message:
        "Check what the audit found."
    shell:
        r"""
        python {input.script:q} \
            --models {params.models:q} \
            --published {params.published:q} \
            --audits {input.audits:q} \
            --report {input.report:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """
