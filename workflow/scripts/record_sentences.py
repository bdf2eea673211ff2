"""Record the mean activation of each FFN neuron on single sentences of every language."""

import argparse

from langneurons import __version__, artifacts
from langneurons.arguments import from_json
from langneurons.corpus.sentences import find_sentences
from langneurons.engines import load_engine
from langneurons.errors import run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=from_json, required=True, help="engine, model, revision and dtype, JSON")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32, help="windows per batch")
    parser.add_argument("--tokens", nargs="+", required=True, help="packed windows, one file per language")
    parser.add_argument("--sentences", type=int, required=True, help="how many of each language")
    parser.add_argument("--outputs", nargs="+", required=True, help="means by sentence, one file per language")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    languages = [artifacts.read_tokens(path) for path in args.tokens]
    engine = load_engine(
        **args.model,
        gpus=args.gpus,
        threads=args.threads,
        batch_size=args.batch_size,
        window=languages[0].windows.shape[1],
    )
    for tokens, output in zip(languages, args.outputs, strict=True):
        language, separator = tokens.metadata["language"], tokens.metadata["separator"]
        sentences = find_sentences(tokens.windows, engine.decode, separator, args.sentences, language)
        means = engine.sentence_means(tokens.windows, sentences)
        metadata = {**engine.description, **args.model, "langneurons": __version__, "text": tokens.metadata}
        artifacts.write_sentences(output, means, metadata | {"language": language})


if __name__ == "__main__":
    run(main)
