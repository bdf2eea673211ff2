"""Answer every language's questions under each perturbation, after proving that it takes effect."""

import argparse
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from langneurons import artifacts
from langneurons.arguments import from_json, perturbation_names
from langneurons.corpus.prompts import Prompt, read_prompts
from langneurons.engines import load_engine
from langneurons.engines.base import Completion, Sampling
from langneurons.engines.proof import probe_windows
from langneurons.errors import run
from langneurons.progress import progress


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=from_json, required=True, help="engine, model, revision and dtype, JSON")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32, help="prompts per batch")
    parser.add_argument(
        "--interventions", nargs="*", default=[], help="intervention files; none generates the baseline"
    )
    parser.add_argument("--tokens", nargs="+", required=True, help="packed windows to prove the interventions on")
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--prompts", nargs="+", required=True, help="question files, one per language")
    parser.add_argument("--settings", type=from_json, required=True, help="the generation section of the config, JSON")
    parser.add_argument("--seed", type=int, required=True, help="only for a temperature above 0")
    parser.add_argument(
        "--output-manifest",
        type=Path,
        required=True,
        help="JSON; what it lists is written beside it, <perturbation>/<language>.jsonl",
    )
    parser.add_argument("--output-effects", nargs="*", default=[], help="what was verified, where nothing else does")
    return parser.parse_args(argv)


def record(prompt: Prompt, text: str, completion: Completion) -> dict[str, object]:
    return {
        "id": prompt.id,
        "split": prompt.split,
        "question": prompt.question,
        "input": text,
        "output": completion.text,
        "output_tokens": completion.tokens,
        "finish_reason": completion.finish_reason,
    }


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    settings = args.settings
    prompts = [
        read_prompts(path, language, settings["validation_prompts"], settings["split"])
        for language, path in zip(args.languages, args.prompts, strict=True)
    ]
    texts = [[settings["template"].replace("{question}", one.question) for one in group] for group in prompts]
    keys = ("max_new_tokens", "temperature", "repetition_penalty")
    sampling = Sampling(**{key: settings[key] for key in keys}, stop=tuple(settings["stop"]), seed=args.seed)
    interventions = [artifacts.read_intervention(path) for path in args.interventions]
    engine = load_engine(
        **args.model,
        gpus=args.gpus,
        threads=args.threads,
        generation_batch_size=args.batch_size,
        interventions=interventions,
    )
    probe = probe_windows([artifacts.read_tokens(path).windows for path in args.tokens])
    effects = {Path(path).name.removesuffix(".json"): path for path in args.output_effects}
    names = perturbation_names(args.interventions)
    for name, intervention in zip(names, interventions, strict=False):  # the baseline has none
        proof = engine.verify(intervention, probe)
        if name in effects:
            artifacts.write_document(effects[name], "effect", asdict(proof))
        print(f"verified {name}: {proof.edited_neurons} neurons in {len(proof.layers)} layers", file=sys.stderr)
    written = []
    family = list(zip(names, interventions or [None], strict=True))
    for name, intervention in progress(family, "generating", unit="perturbation"):
        with engine.perturbed(intervention) if intervention else nullcontext():
            completions = iter(engine.generate([text for group in texts for text in group], sampling))
        for language, group, inputs in zip(args.languages, prompts, texts, strict=True):
            records = [record(prompt, text, next(completions)) for prompt, text in zip(group, inputs, strict=True)]
            written.append(args.output_manifest.parent / name / f"{language}.jsonl")
            artifacts.write_records(written[-1], "generations", records)
    artifacts.write_manifest(args.output_manifest, written)


if __name__ == "__main__":
    run(main)
