"""The jobs of an experiment and what each of them waits for, as the rules have them. Standard library only.

A test compares the number of jobs of every rule with Snakemake's dry run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from langneurons import config as experiment
from langneurons import cost, variants, workload
from langneurons.schedule import Job
from langneurons.variants import ANSWERS, PERPLEXITY, Mapping

FAMILIES = ("plan", "measure_perplexity", "generate_text", "import_generations")
"""Beginnings of the names of rules of which there is one per family, part of a family, or model."""


def jobs(config: Mapping) -> list[Job]:
    """All jobs of a run of which nothing has been done yet, each after those that it needs: model by model.

    Jobs on GPUs, `score_text` and `test_effects` have their time; that of the others, and of models that run on CPUs,
    is taken as nothing beside hours of GPUs.

    Raises:
        ConfigError: a model of the hub whose size is not known.
    """
    found = []
    for model in config["run"]["models"]:
        made = _own(config, model) if model in experiment.own_models(config) else _published(config, model)
        found += made + _analysis(config, model, made)
    return found + _report(config, found)


def counts(found: Iterable[Job]) -> dict[str, int]:
    """Number of jobs by rule, in the order of the jobs."""
    return dict(Counter(job.rule for job in found))


def as_table(found: Iterable[Job]) -> list[str]:
    """Lines of a table: jobs by rule; rules of families, and of models, are counted together."""
    together = Counter(
        next((f"{stem}_…" for stem in FAMILIES if job.rule.startswith(f"{stem}_")), job.rule) for job in found
    )
    rows = [["rule", "jobs"], ["---"] * 2, *([rule, f"{count:,}"] for rule, count in together.items())]
    rows.append(["together", f"{together.total():,}"])
    return [f"| {' | '.join(row)} |" for row in rows]


def _named(rule: str, model: str, part: str = "", needs: Iterable[str] = (), gpus: int = 0, seconds: float = 0) -> Job:
    name = f"{rule} of {model}" + (f", {part}" if part else "")
    return Job(name, rule, tuple(needs), gpus, seconds)


def _names(found: Iterable[Job], *stems: str) -> list[str]:
    """The names of jobs by the beginning of their rule's name."""
    return [job.name for job in found if job.rule.startswith(stems)]


# -- models that run here ---------------------------------------------------------------------------------------------


def _own(config: Mapping, model: str) -> list[Job]:
    """The jobs of a model up to its measurements."""
    gpus = config["models"][model]["gpus"]
    source = {"demo": "train_demo_model", "hub": "download_model"}.get(config["models"][model]["source"])
    loaded = [_named(source, model)] if source else []
    languages = config["run"]["languages"]
    tokens = [_named("tokenize_corpus", model, language, _names(loaded, "")) for language in languages]
    seconds = cost.job_seconds(config, model) if gpus else {}
    recorded = _recordings(config, model, tokens, gpus, seconds.get("recording", {}))
    if workload.sentences(config):
        time = seconds["sentences"]["all", 1] if gpus else 0.0
        recorded.append(_named("record_sentences", model, "", _names(tokens, ""), gpus, time))
    neurons = [_named("identify_neurons", model, name, _needed(config, name, recorded)) for name in _selections(config)]
    plans = _plans(config, model, neurons, recorded)
    prompts = _named("check_prompts", model, "", _names(loaded, ""))
    measured = [
        _named(f"{rule}_{job.identifier}", model, "", needs, gpus, seconds[stage][job.name, 1] if gpus else 0.0)
        for rule, stage, others in (("measure_perplexity", PERPLEXITY, []), ("generate_text", ANSWERS, [prompts.name]))
        for job in variants.jobs(config, stage)
        for needs in [[*_names(tokens, ""), *others, *([_plan(job.family, model)] if job.edits else [])]]
    ]
    return [*loaded, *tokens, prompts, *recorded, *neurons, *plans, *measured]


def _recordings(
    config: Mapping, model: str, tokens: Sequence[Job], gpus: int, seconds: dict[tuple[str, int], float]
) -> list[Job]:
    """The recording of every language: one job, or its shards and the one that adds them up, which takes no GPU."""
    found = []
    shards = workload.shards(config)
    for language, before in zip(config["run"]["languages"], tokens, strict=True):
        if shards == 1:
            time = seconds.get((language, 1), 0.0)
            found.append(_named("record_activations", model, language, [before.name], gpus, time))
            continue
        parts = [
            _named("record_shard", model, f"{language} {shard}", [before.name], gpus, seconds.get((language, shard), 0))
            for shard in range(1, shards + 1)
        ]
        found += [*parts, _named("record_activations", model, language, [before.name, *_names(parts, "")])]
    return found


def _selections(config: Mapping) -> list[str]:
    return list(variants.run_selections(config))


def _needed(config: Mapping, selection: str, recorded: Sequence[Job]) -> list[str]:
    """The recordings that a selection of neurons needs: of all languages, and sentences where its method does."""
    sentences = variants.run_selections(config)[selection]["method"] in variants.SENTENCE_METHODS
    return _whole(recorded) + (_names(recorded, "record_sentences") if sentences else [])


def _whole(recorded: Sequence[Job]) -> list[str]:
    """The jobs that leave the recording of a language."""
    return _names(recorded, "record_activations", "import_activations")


def _plan(family: str, model: str) -> str:
    return _named(f"plan_{variants.identifier(family)}", model).name


def _plans(config: Mapping, model: str, neurons: Sequence[Job], recorded: Sequence[Job]) -> list[Job]:
    """One job per family, after the neurons, and where it steers or matches activity the recordings, that it uses."""
    found = []
    for family in variants.families(config):
        used = variants.plan_selections(config, family)
        needs = [job.name for job, name in zip(neurons, _selections(config), strict=True) if name in used]
        if variants.plan_needs_activations(config, family):
            needs += _whole(recorded)
        found.append(_named(f"plan_{variants.identifier(family)}", model, "", needs))
    return found


# -- models of which others published files ---------------------------------------------------------------------------


def _published(config: Mapping, model: str) -> list[Job]:
    """The jobs that fetch and import the files of a published model."""
    files = experiment.published_files(config, model)
    contents = experiment.contents(config, model)
    fetched = [_named("download_published", model, name) for name, file in files.items() if file.remote]

    def downloads(kind: str) -> list[str]:
        return [job.name for job in fetched if job.name.startswith(f"download_published of {model}, {kind}")]

    found = []
    if contents["recorded"]:
        found.append(_named("import_activations", model, "", downloads("activations/")))
        if config["identification"]["method"] in contents["methods"]:
            method = config["identification"]["method"]
            found.append(_named("identify_neurons", model, method, _whole(found)))
    if experiment.PUBLISHED in contents["methods"]:
        found.append(_named("import_neurons", model, "", downloads("masks") + _whole(found)))
    if contents["answered"]:
        rule = f"import_generations_{model.replace('-', '_')}"
        found.append(_named(rule, model, "", downloads("generations/")))
    return fetched + found


# -- metrics, audit, report -------------------------------------------------------------------------------------------


def _analysis(config: Mapping, model: str, made: Sequence[Job]) -> list[Job]:
    """The metrics of a model and its audit."""
    own = model in experiment.own_models(config)
    read, answered = _names(made, "measure_perplexity"), _names(made, "generate_text", "import_generations")
    found = [_named("score_perplexity", model, "", read)] if own else []
    if answered:
        found.append(_named("score_text", model, "", answered, seconds=cost.scoring_seconds(config) if own else 0.0))
        if config["metrics"]["relevance"]:
            found.append(_named("score_relevance", model, "", _names(found, "score_text")))
        time = cost.testing_seconds(config, model) if own else 0.0
        found.append(_named("test_effects", model, "", _names(found, "score"), seconds=time))
    if own:
        found.append(_named("test_stability", model, "", _whole(made)))
    neurons = _names(made, "identify_neurons", "import_neurons")
    scored = _names(found, "score_perplexity", "score_text")
    audited = _named("audit_results", model, "", [*_whole(made), *neurons, *read, *answered, *scored])
    return [*found, audited]


def _report(config: Mapping, before: Sequence[Job]) -> list[Job]:
    """The jobs over all models."""
    metrics = _names(before, "audit_results", "test_effects", "test_stability", "score_text")
    tables = Job("make_tables", "make_tables", tuple(metrics))
    figures = [_named("plot_figures", model, "", ["make_tables"]) for model in config["run"]["models"]]
    page = Job("render_report", "render_report", ("make_tables", *_names(figures, "")))
    paper = Job("print_report", "print_report", ("render_report",))
    notebook = Job("execute_notebook", "execute_notebook", ("make_tables",))
    checked = Job("check_audit", "check_audit", ("render_report", *_names(before, "audit_results")))
    made = [page, paper, notebook, checked]
    everything = [job.name for job in [*before, *made]]
    return [tables, *figures, *made, Job("all", "all", tuple(everything))]
