"""
Report: tables, figures, one self-contained page over all models, the same for print, and a notebook to go on from.

REQUIRED INPUTS: the metrics, neurons and recordings of every model of the run.
OUTPUTS: results/tables/*.csv, results/figures/<model>/*.svg, results/report/report.html, results/report/report.pdf,
    results/report/analysis.ipynb, results/config.json
"""

# Tables and figures by file name, with their labels in `snakemake --report`; captions are in report/captions/.
TABLES = {
    "recordings": "Recorded text",
    "neurons": "Neurons by language",
    "neurons_by_layer": "Neurons by layer",
    "overlaps": "Overlaps of neurons",
    "thresholds": "Thresholds of the selection",
    "perplexity": "Perplexity",
    "text": "Answers",
    "output_languages": "Languages of the answers",
    "effects": "Proof of effect",
    "variants": "Variants",
    "differences": "Effects with intervals and tests",
    "steering": "Steering success",
    "stop_words": "Stop words by list and output language",
    "convergence": "Neurons that methods share",
    "stability": "Firmness of the neurons",
    "replication": "Beside published numbers",
    "audit": "Audit",
}
FIGURES = {
    "layer_profile": "Where the neurons are",
    "neuron_overlap": "Neurons that languages share",
    "method_overlap": "Neurons that methods share",
    "language_effects": "Effects of switching off, with intervals",
    "rate_curve": "Effect by the share of neurons",
    "perplexity_ratio": "Perplexity ratio",
    "perplexity_spread": "Every perplexity ratio",
    "steering_success": "Steering success",
    "output_languages": "Languages of the answers",
}


rule make_tables:
    """
    Write the tables over all models: recordings, neurons, perplexity and its ratio to the baseline, text, output languages.
    """
    input:
        measurements=[file for model in MODELS for file in measurements(model)],
        tested=[file for model in MODELS for file in metrics(model, "effects", "stop_words", "stability")],
        audits=expand("results/{model}/audit.json", model=MODELS),
        script=script("make_tables"),
        code=code(
            "corpus/shares.py",
            "corpus/textfiles.py",
            "report/tables.py",
            "report/replication.py",
            "report/references.py",
            "report/reference.csv",
            "metrics/perplexity.py",
            "metrics/text.py",
            "metrics/language.py",
            "metrics/words.py",
            "metrics/copying.py",
            "metrics/degeneration.py",
            "metrics/statistics.py",
            "metrics/steering.py",
            "neurons/convergence.py",
        ),
    output:
        [
            report(
                f"results/tables/{table}.csv",
                category="Tables",
                caption=f"../report/captions/table_{table}.rst",
                labels={"table": label},
            )
            for table, label in TABLES.items()
        ],
    log:
        "results/logs/make_tables.log",
    benchmark:
        "results/timings/make_tables.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("analysis"),
    params:
        models=MODELS,
        languages=LANGUAGES,
        contents=constant({model: CONTENTS[model] for model in MODELS}),
        replicates=constant({model: config["models"][model].get("replicates") for model in MODELS}),
        perturbations=constant(variants.describe_all(config)),
        variants=constant(variants.settings(config)),
    message:
        "Write the tables."
    shell:
        r"""
        python {input.script:q} \
            --models {params.models:q} \
            --languages {params.languages:q} \
            --contents {params.contents:q} \
            --replicates {params.replicates:q} \
            --perturbations {params.perturbations:q} \
            --variants {params.variants:q} \
            --results results \
            --output results/tables \
            2>&1 | tee {log:q}
        """


rule plot_figures:
    """
    Plot where the neurons of one model are, whether methods and languages share them, what switching them off does to
    perplexity, at every rate and beside random controls, how often steering succeeds, and in which language it answers.
    """
    input:
        tables=expand(
            "results/tables/{table}.csv",
            table=[
                "neurons_by_layer",
                "thresholds",
                "overlaps",
                "convergence",
                "variants",
                "effects",
                "perplexity",
                "differences",
                "steering",
                "output_languages",
            ],
        ),
        script=script("plot_figures"),
        code=code(
            "report/figures.py",
            "report/effect_figures.py",
            "report/steering_figures.py",
            "report/neuron_figures.py",
            "report/looks.py",
            "report/choices.py",
            "report/shares.py",
            "report/formats.py",
            "report/findings.py",
            "metrics/steering.py",
            "metrics/statistics.py",
            "metrics/language.py",
            "variants.py",
        ),
    output:
        [
            report(
                f"results/figures/{{model}}/{figure}.svg",
                category="Figures",
                subcategory="{model}",
                caption=f"../report/captions/figure_{figure}.rst",
                labels={"model": "{model}", "figure": label},
            )
            for figure, label in FIGURES.items()
        ],
    log:
        "results/logs/plot_figures/{model}.log",
    benchmark:
        "results/timings/plot_figures/{model}.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("analysis"),
    params:
        languages=LANGUAGES,
    message:
        "Plot the figures of {wildcards.model}."
    shell:
        r"""
        python {input.script:q} \
            --model {wildcards.model:q} \
            --languages {params.languages:q} \
            --tables results/tables \
            --output results/figures/{wildcards.model} \
            2>&1 | tee {log:q}
        """


rule render_report:
    """
    Render the report: what was run, what was found, and examples side by side. The config that made it is left beside.
    """
    input:
        tables=expand("results/tables/{table}.csv", table=TABLES),
        figures=expand("results/figures/{model}/{figure}.svg", model=MODELS, figure=FIGURES),
        texts=[f"results/{model}/metrics/text.parquet" for model in MODELS if CONTENTS[model]["answered"]],
        template=relative(ROOT / "report" / "templates" / "report.html.j2"),
        parts=[relative(path) for path in sorted((ROOT / "report" / "templates" / "parts").glob("*.j2"))],
        style=relative(ROOT / "report" / "templates" / "style.css"),
        behaviour=relative(ROOT / "report" / "templates" / "script.js"),
        script=script("render_report"),
        code=code(
            "report/render.py",
            "report/questions.py",
            "report/views.py",
            "report/effect_views.py",
            "report/findings.py",
            "report/glance.py",
            "report/choices.py",
            "report/shares.py",
            "report/agreement.py",
            "report/formats.py",
            "report/references.py",
            "report/looks.py",
            "metrics/steering.py",
            "metrics/statistics.py",
            "metrics/language.py",
            "metrics/copying.py",
            "metrics/degeneration.py",
            "variants.py",
        ),
    output:
        page=report(
            "results/report/report.html",
            category="Report",
            caption="../report/captions/report.rst",
            labels={"page": config["report"]["title"]},
        ),
        config="results/config.json",
    log:
        "results/logs/render_report.log",
    benchmark:
        "results/timings/render_report.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("analysis"),
    params:
        config=constant(experiment.reported(config)),
    message:
        "Render the report."
    shell:
        r"""
        python {input.script:q} \
            --config {params.config:q} \
            --results results \
            --template {input.template:q} \
            --style {input.style:q} \
            --script {input.behaviour:q} \
            --output {output.page:q} \
            --output-config {output.config:q} \
            2>&1 | tee {log:q}
        """


rule print_report:
    """
    Set the page for print, with numbered tables and figures: a PDF that has its fonts inside. What the page folds away
    becomes an appendix.
    """
    input:
        page="results/report/report.html",
        template=relative(ROOT / "report" / "templates" / "print.typ"),
        script=script("print_report"),
        code=code("report/typesetting.py", "report/page_tree.py", "report/fonts.py"),
    output:
        report(
            "results/report/report.pdf",
            category="Report",
            caption="../report/captions/print.rst",
            labels={"page": "For print"},
        ),
    log:
        "results/logs/print_report.log",
    benchmark:
        "results/timings/print_report.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("analysis"),
    params:
        fonts=config["report"]["fonts"],
    message:
        "Set the report for print."
    shell:
        r"""
        python {input.script:q} \
            --page {input.page:q} \
            --template {input.template:q} \
            --fonts {params.fonts:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """


rule execute_notebook:
    """
    Execute the notebook to go on from: it loads the tables with pandas and redraws the main figures.
    """
    input:
        tables=expand("results/tables/{table}.csv", table=TABLES),
        source=relative(ROOT / "report" / "notebook" / "analysis.py"),
        script=script("execute_notebook"),
        code=code("report/notebook.py", "report/looks.py", "report/shares.py", "metrics/language.py"),
    output:
        report(
            "results/report/analysis.ipynb",
            category="Report",
            caption="../report/captions/notebook.rst",
            labels={"page": "Notebook to go on from"},
        ),
    log:
        "results/logs/execute_notebook.log",
    benchmark:
        "results/timings/execute_notebook.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **cluster("analysis"),
    params:
        models=MODELS,
        languages=LANGUAGES,
    message:
        "Execute the notebook."
    shell:
        r"""
        python {input.script:q} \
            --source {input.source:q} \
            --models {params.models:q} \
            --languages {params.languages:q} \
            --tables results/tables \
            --output {output:q} \
            2>&1 | tee {log:q}
        """
