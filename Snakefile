"""Find, perturb and explain language-specific neurons: the whole experiment, stage by stage.

    snakemake --cores all --resources gpu=1

Every stage is one file in rules/; its scripts are in workflow/scripts/, the library in workflow/langneurons/.
"""

from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/cluster.smk"
include: "rules/models.smk"
include: "rules/published.smk"
include: "rules/corpus.smk"
include: "rules/activations.smk"
include: "rules/neurons.smk"
include: "rules/perturbations.smk"
include: "rules/perplexity.smk"
include: "rules/generation.smk"
include: "rules/effects.smk"
include: "rules/audit.smk"
include: "rules/report.smk"


if "{" in workflow.basedir or "}" in workflow.basedir:
    escape_braces()


onstart:
    if workflow.is_main_process:  # and not a job, which reads this file as well
        check_slurm()
        or_workflow_error(formats.stamp, "results")


rule all:
    default_target: True
    input:
        MEASUREMENTS.wanted(),
        "results/report/report.html",
        "results/report/report.pdf",
        "results/report/analysis.ipynb",
        "results/report/audit.txt",
    message:
        "Every combination is measured. The report: results/report/report.html"
