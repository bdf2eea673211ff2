"""
Report: tables, figures and one self-contained page over all models.

REQUIRED INPUTS: the metrics, neurons and recordings of every model of the run.
OUTPUTS: results/tables/*.csv, results/figures/<model>/*.svg, results/report/report.html
"""

TABLES = [
    "recordings",
    "neurons",
    "neurons_by_layer",
    "thresholds",
    "perplexity",
    "text",
    "output_languages",
    "effects",
]
FIGURES = ["layer_profile", "perplexity_ratio", "output_languages"]


rule make_tables:
    """
    Write the tables over all models: recordings, neurons, perplexity and its ratio to the baseline, text, output languages.
    """
    input:
        activations=expand(
            "results/{model}/activations/{language}.safetensors",
            model=MODELS,
            language=LANGUAGES,
        ),
        neurons=expand("results/{model}/neurons/{method}.parquet", model=MODELS, method=METHODS),
        metrics=expand(
            "results/{model}/metrics/{metric}.parquet",
            model=MODELS,
            metric=["perplexity", "text"],
        ),
        effects=expand(
            "results/{model}/effects/{perturbation}.json",
            model=MODELS,
            perturbation=[perturbation for perturbation in PERTURBATIONS if perturbation != experiment.BASELINE],
        ),
        script=script("make_tables"),
        code=code("report/tables.py", "metrics/perplexity.py", "metrics/text.py"),
    output:
        report(
            expand("results/tables/{table}.csv", table=TABLES),
            category="Tables",
            caption="../report/captions/table.rst",
        ),
    log:
        "results/logs/make_tables.log",
    benchmark:
        "results/timings/make_tables.tsv"
    conda:
        "../envs/analysis.yaml"
    params:
        models=MODELS,
        languages=LANGUAGES,
        methods=METHODS,
        perturbations=constant(experiment.describe_all(config)),
    message:
        "Write the tables."
    shell:
        r"""
        python {input.script:q} \
            --models {params.models:q} \
            --languages {params.languages:q} \
            --methods {params.methods:q} \
            --perturbations {params.perturbations:q} \
            --results results \
            --output results/tables \
            2>&1 | tee {log:q}
        """


rule plot_figures:
    """
    Plot where the neurons are, what switching them off does to perplexity, and in which language the models answer.
    """
    input:
        tables=expand(
            "results/tables/{table}.csv",
            table=["neurons_by_layer", "perplexity", "output_languages"],
        ),
        script=script("plot_figures"),
        code=code("report/figures.py"),
    output:
        report(
            expand("results/figures/{model}/{figure}.svg", model=MODELS, figure=FIGURES),
            category="Figures",
            caption="../report/captions/figure.rst",
        ),
    log:
        "results/logs/plot_figures.log",
    benchmark:
        "results/timings/plot_figures.tsv"
    conda:
        "../envs/analysis.yaml"
    params:
        models=MODELS,
        languages=LANGUAGES,
    message:
        "Plot the figures."
    shell:
        r"""
        python {input.script:q} \
            --models {params.models:q} \
            --languages {params.languages:q} \
            --tables results/tables \
            --output results/figures \
            2>&1 | tee {log:q}
        """


rule render_report:
    """
    Render the report: what was run, what was found, and examples side by side.
    """
    input:
        tables=expand("results/tables/{table}.csv", table=TABLES),
        figures=expand("results/figures/{model}/{figure}.svg", model=MODELS, figure=FIGURES),
        texts=expand("results/{model}/metrics/text.parquet", model=MODELS),
        templates=[relative(path) for path in sorted((ROOT / "report" / "templates").iterdir()) if path.is_file()],
        script=script("render_report"),
        code=code("report/render.py"),
    output:
        report(
            "results/report/report.html",
            category="Report",
            caption="../report/captions/report.rst",
        ),
    log:
        "results/logs/render_report.log",
    benchmark:
        "results/timings/render_report.tsv"
    conda:
        "../envs/analysis.yaml"
    params:
        config=constant(experiment.reported(config)),
    message:
        "Render the report."
    shell:
        r"""
        python {input.script:q} \
            --config {params.config:q} \
            --results results \
            --templates {input.templates[0]:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """
