"""Train a demo model and its tokenizer from scratch on the training split of its languages.

Example:
    python workflow/scripts/train_demo_model.py --settings '{"architecture": "gpt2", …}' --sources '{"en": {…}}' \
        --share '{"valid": 0.1, "test": 0.15}' --seed 0 --threads 1 --output results/gpt2-demo/model
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import torch

from langneurons.arguments import from_json
from langneurons.config import source_files
from langneurons.corpus.sources import SPLIT_SEED, documents, split_of
from langneurons.corpus.windows import pack_all
from langneurons.demo.training import DemoModel, build_model, train, train_tokenizer
from langneurons.errors import run
from langneurons.writing import atomic_folder


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", type=from_json, required=True, help="the model's entry in the config, JSON")
    parser.add_argument("--sources", type=from_json, required=True, help="text source by language, JSON")
    parser.add_argument("--share", type=from_json, required=True, help="share of documents for valid and test, JSON")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; another number rounds differently")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model and its tokenizer")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    demo = DemoModel(**{field.name: args.settings[field.name] for field in fields(DemoModel)})
    texts = {
        language: [
            document.text
            for document in documents(source, source_files(source, language), args.seed)
            if split_of(document.key, SPLIT_SEED, args.share) == "train"
        ]
        for language, source in args.sources.items()
    }
    tokenizer = train_tokenizer([text for language in texts.values() for text in language], demo.vocabulary)
    windows = {language: pack_all(texts[language], tokenizer, demo.context, language) for language in texts}
    model = build_model(demo, tokenizer)
    loss = train(model, windows, demo, args.seed)
    with atomic_folder(args.output) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(f"{model.num_parameters():,} parameters, final training loss {loss:.3f} nats per token", file=sys.stderr)


if __name__ == "__main__":
    run(main)
