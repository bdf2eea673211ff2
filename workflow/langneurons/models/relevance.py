"""Whether an answer still addresses its question: by sentence embeddings, or by a language model that judges it.

To add a kind: write its function as `_by_embedding` is written, and name it in `KINDS` and `EXPECTED`. Models only read
texts here, so that any architecture of `transformers` will do; `langneurons.models.loading` is for those perturbed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from scipy.special import expit
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from langneurons.errors import UserError
from langneurons.models.folders import without_place
from langneurons.models.layouts import LAYOUTS
from langneurons.models.tokenizer import settings_of
from langneurons.progress import progress

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

Settings = dict[str, Any]
"""The section `metrics.relevance` of the config."""
Pair = tuple[str, str]
"""A question and its answer."""

PLACEHOLDERS = ("{question}", "{answer}")
POOLING = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls"}
"""Pooling by its names in the files of sentence-transformers."""
MODULES = ("Transformer", "Pooling", "Normalize")
"""Modules of sentence-transformers that are worked out here; vectors are always normalised."""
UNLIMITED = 2**31
"""Tokenizers without a maximum length name one above this."""
EXPECTED = {
    "embedding": "kind: embedding expects a folder or hub id with an encoder, such as BERT, and its tokenizer",
    "judge": "kind: judge expects a folder or hub id with a causal language model and its tokenizer",
}
FOREIGN_CODE = "brings code of its own, and code of others is never run here"


class RelevanceError(UserError):
    """Settings or a model that cannot score relevance, with the key `metrics.relevance.…` and the remedy."""


def score(
    settings: Settings, pairs: Sequence[Pair], gpus: int = 0, threads: int = 1, batch_size: int = 32
) -> np.ndarray:
    """Score how well answers address their questions; higher is better.

    Pairs that are equal are computed once. An answer of nothing but white space scores 0 without being read.

    Args:
        settings: `kind` (embedding or judge), `path` (a folder) or `id` (of the hub), and optionally `revision` of an
            id and `dtype` (float32, bfloat16 or float16; by default float32). For an embedding optionally
            `query_prefix` and `answer_prefix`, which some models want before questions and answers (E5: "query: " and
            "passage: "). For a judge `template`, a text with {question} and {answer} that ends where the judge replies,
            and optionally `accept` and `reject`, how the reply begins. The tokenizer's own special tokens, such as the
            begin of a text, are added to the template.
        pairs: questions and answers.
        gpus: 0 for the CPU; else the model is placed on the visible GPU.
        threads: CPU threads.
        batch_size: texts per batch. Batches hold texts of similar length; their padding changes no score.

    Returns:
        float64 `[pair]`. embedding: the cosine between the vectors of question and answer, -1 to 1, of texts cut to the
        model's maximum length. judge: P(yes) / (P(yes) + P(no)), 0 to 1.

    Raises:
        RelevanceError: a template without its placeholders, no such model or one of another kind, no GPU, a text that
            exceeds the judge's context, or scores that are not finite.
    """
    if settings["kind"] not in KINDS:
        raise RelevanceError(
            f"metrics.relevance.kind: '{settings['kind']}' is unknown. Choose one of: {', '.join(KINDS)}."
        )
    if gpus and not torch.cuda.is_available():
        raise RelevanceError(
            f"metrics.relevance asks for {gpus} GPU(s), but PyTorch sees none. Set 'gpus: 0' to run on the CPU."
        )
    torch.set_num_threads(threads)  # it changes how sums are rounded
    distinct = list(dict.fromkeys((question, answer) for question, answer in pairs if answer.strip()))
    if not distinct:
        return np.zeros(len(pairs))
    scores = KINDS[settings["kind"]](settings, distinct, "cuda" if gpus else "cpu", batch_size)
    if not np.isfinite(scores).all():
        raise RelevanceError(
            f"{_key(settings)}: the scores of the model '{_name(settings)}' are NaN or infinite. Use a wider "
            "number format (metrics.relevance.dtype: float32), or another model."
        )
    by_pair = dict(zip(distinct, scores.tolist(), strict=True))
    return np.array([by_pair.get((question, answer), 0.0) for question, answer in pairs], dtype=np.float64)


# -- embedding --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pooler:
    """What a folder of sentence-transformers says beside its encoder; the defaults are for a folder of transformers."""

    pooling: str = "mean"
    """mean over all real tokens, or cls: the first token."""
    subfolder: str = ""
    """Where the encoder is, relative to the folder."""
    longest: int | None = None
    """Tokens to which texts are cut, if fewer than the encoder takes."""
    lower_case: bool = False
    """Whether texts are put into lower case first."""


def _by_embedding(settings: Settings, pairs: Sequence[Pair], device: str, batch_size: int) -> np.ndarray:
    """Cosines of pairs, float64 `[pair]`."""
    pooler = _read_pooler(settings)
    config = _read_config(settings, pooler.subfolder)
    if config.is_encoder_decoder or _causal_architecture(config) in (config.architectures or []):
        raise _wrong_model(settings, f"is no encoder, but {_named(config)}")
    model = _load(settings, transformers.AutoModel, device, pooler.subfolder)
    tokenizer = _load_tokenizer(settings, pooler.subfolder)
    questions = [settings.get("query_prefix", "") + question for question, _ in pairs]
    answers = [settings.get("answer_prefix", "") + answer for _, answer in pairs]
    texts = list(dict.fromkeys(questions + answers))
    vectors = dict(zip(texts, _embed(model, tokenizer, pooler, texts, batch_size), strict=True))
    cosines = [vectors[question] @ vectors[answer] for question, answer in zip(questions, answers, strict=True)]
    return np.clip(np.array(cosines, dtype=np.float64), -1, 1)


@torch.inference_mode()
def _embed(model: Any, tokenizer: Any, pooler: Pooler, texts: Sequence[str], batch_size: int) -> np.ndarray:
    """Vectors of length 1, float64 `[text, dimension]`; of length 0 for a text without any token."""
    longest = _longest(model, tokenizer, pooler)
    read = [text.lower() for text in texts] if pooler.lower_case else list(texts)
    cut = tokenizer(read, truncation=longest is not None, max_length=longest)["input_ids"]
    vectors = np.zeros((len(texts), model.config.hidden_size))
    for indices, ids, mask in _batches(cut, batch_size, tokenizer.pad_token_id, model.device):
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.double()
        real = mask.unsqueeze(-1)
        pooled = hidden[:, 0] if pooler.pooling == "cls" else (hidden * real).sum(1) / real.sum(1)
        vectors[indices] = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
    return vectors


def _longest(model: Any, tokenizer: Any, pooler: Pooler) -> int | None:
    """The most tokens that the encoder takes; None if there is no limit."""
    positions = getattr(model.config, "max_position_embeddings", None)
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if positions and padding is not None:
        positions -= padding + 1  # RoBERTa and its kin count positions from the one after the padding's
    longest = min(limit for limit in (positions, tokenizer.model_max_length, pooler.longest, UNLIMITED) if limit)
    return longest if longest < UNLIMITED else None


def _read_pooler(settings: Settings) -> Pooler:
    """What modules.json and the files that it names say; the defaults where there is none.

    Raises:
        RelevanceError: no such folder, or modules or a pooling that are not worked out here.
    """
    folder = _folder(settings)
    if not (folder / "modules.json").exists():
        return Pooler()
    with _explained(settings):
        listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        modules = {module["type"].rpartition(".")[2]: module["path"] for module in listed}
        unknown = [name for name in modules if name not in MODULES]
        if unknown or "Transformer" not in modules:
            raise _wrong_model(
                settings,
                f"consists of {', '.join(modules)} (modules.json), but only {', '.join(MODULES)} can be computed",
            )
        encoder = folder / modules["Transformer"]
        pooling = _read_json(folder / modules["Pooling"] / "config.json") if "Pooling" in modules else {}
        text: Settings = {}
        for path in sorted(encoder.glob("sentence_*_config.json")):
            text |= _read_json(path)
    return Pooler(
        _pooling(settings, pooling),
        modules["Transformer"],
        text.get("max_seq_length"),
        bool(text.get("do_lower_case")),
    )


def _pooling(settings: Settings, config: Settings) -> str:
    """The pooling that the config of the module Pooling names, in its present or its earlier form."""
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else named
    if modes is None:
        flags = {key.removeprefix("pooling_mode_"): value for key, value in config.items() if "pooling_mode_" in key}
        modes = [name for name, value in flags.items() if value] or ["mean"]
    if len(modes) != 1 or modes[0] not in POOLING:
        raise _wrong_model(settings, f"pools tokens by {' and '.join(modes)}, but only mean and cls can be computed")
    return POOLING[modes[0]]


# -- judge ------------------------------------------------------------------------------------------------------------

REPLIES = {"accept": "yes", "reject": "no"}
"""Keys of a judge's two replies, and their defaults."""


def _by_judge(settings: Settings, pairs: Sequence[Pair], device: str, batch_size: int) -> np.ndarray:
    """P(yes) / (P(yes) + P(no)) of pairs, float64 `[pair]`."""
    parts = _template_parts(settings["template"])
    config = _read_config(settings)
    architecture = _causal_architecture(config)
    if architecture not in (config.architectures or []):
        raise _wrong_model(settings, f"is no causal language model, but {_named(config)}")
    attention = LAYOUTS[architecture].attention if architecture in LAYOUTS else None
    tokenizer = _load_tokenizer(settings)
    words = [_reply_tokens(tokenizer, parts[-1], key, settings.get(key, default)) for key, default in REPLIES.items()]
    if words[0] == words[1]:
        raise RelevanceError(
            "metrics.relevance.accept and metrics.relevance.reject are the same to the judge's tokenizer. Choose words "
            "that it knows."
        )
    prompts = [_prompt_tokens(tokenizer, _filled(parts, *pair)) for pair in pairs]
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    needed = max((len(prompt) for prompt in prompts), default=0) + max(map(len, words)) - 1
    if context and needed > context:
        raise RelevanceError(
            f"{_key(settings)}: the longest question and answer take {needed} tokens in the template, but the "
            f"judge '{_name(settings)}' reads no more than {context}. Use a judge with a longer context, or lower "
            "generation.max_new_tokens."
        )
    model = _load(settings, transformers.AutoModelForCausalLM, device, attention=attention)
    yes, no = _log_probabilities(model, prompts, words, batch_size)
    return expit(yes - no)


def _template_parts(template: str) -> list[str]:
    """The template cut at its placeholders, which stay as parts of their own; the last part is the text after them.

    Raises:
        RelevanceError: a placeholder is missing.
    """
    missing = [name for name in PLACEHOLDERS if name not in template]
    if missing:
        raise RelevanceError(
            f"metrics.relevance.template: {' and '.join(missing)} is missing. Write it where the judge is to read it, "
            "such as: 'Question: {question}\\nAnswer: {answer}\\nDoes the answer address the question? Reply:'"
        )
    return re.split(f"({'|'.join(map(re.escape, PLACEHOLDERS))})", template)


def _filled(parts: list[str], question: str, answer: str) -> str:
    """The template with question and answer as they are, placeholders in them included."""
    values = dict(zip(PLACEHOLDERS, (question, answer), strict=True))
    return "".join(values.get(part, part) for part in parts)


def _prompt_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """The tokens of a prompt, with those that the tokenizer puts before a text, without an end of the text."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    ended = ids[-1:] == [tokenizer.eos_token_id] and not prompt.endswith(tokenizer.eos_token)
    return ids[:-1] if ended else ids


def _reply_tokens(tokenizer: Any, end: str, key: str, word: str) -> tuple[int, ...]:
    """The tokens of a word that follows the end of the template.

    Raises:
        RelevanceError: they are none, or the word's first token would hold a piece of the template.
    """
    before = tokenizer(end, add_special_tokens=False)["input_ids"]
    after = tokenizer(end + word, add_special_tokens=False)["input_ids"]
    if after[: len(before)] != before or len(after) == len(before):
        raise RelevanceError(
            f"metrics.relevance.{key}: '{word}' has no tokens of its own after the end of metrics.relevance.template. "
            "Let the template end without a space, and begin 'accept' and 'reject' with it, such as: ' yes'."
        )
    return tuple(after[len(before) :])


@torch.inference_mode()
def _log_probabilities(
    model: Any, prompts: Sequence[list[int]], words: Sequence[tuple[int, ...]], batch_size: int
) -> np.ndarray:
    """Summed log-probabilities of each word's tokens after each prompt, float64 `[word, prompt]`.

    Words that differ in no more than the last token share one pass. Prompts are padded on the right, where causal
    models do not look.
    """
    result = np.zeros((len(words), len(prompts)))
    for start in dict.fromkeys(word[:-1] for word in words):
        rows = [[*prompt, *start] for prompt in prompts]
        steps = torch.arange(len(start) + 1, device=model.device)
        for indices, ids, mask in _batches(rows, batch_size, 0, model.device):
            after_end = mask.sum(1) - ids.shape[1]  # where rows end, counted from the end of the longest
            kept = len(steps) - int(after_end.min())
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
            positions = after_end[:, None] - len(steps) + steps
            chosen = logits[torch.arange(len(ids), device=model.device)[:, None], positions]
            log_probabilities = chosen.double().log_softmax(-1)  # [row, step, token]
            for number, word in enumerate(words):
                if word[:-1] == start:
                    tokens = torch.tensor(word, device=model.device)
                    result[number, indices] = log_probabilities[:, steps, tokens].sum(1).cpu().numpy()
    return result


# -- both -------------------------------------------------------------------------------------------------------------


def _batches(
    rows: Sequence[Sequence[int]], batch_size: int, pad: int | None, device: torch.device
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Batches of rows of similar length, the longest first, padded on the right; rows without tokens are left out.

    Yields:
        The numbers of the rows, their tokens, and the mask, both int64 `[row, position]`.
    """
    order = sorted((number for number, row in enumerate(rows) if row), key=lambda number: (-len(rows[number]), number))
    for start in progress(range(0, len(order), batch_size), "relevance", unit="batch"):
        chosen = order[start : start + batch_size]
        tokens = [torch.tensor(rows[number]) for number in chosen]
        ids = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=pad or 0)  # masked: any will do
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
        yield chosen, ids.to(device), mask.to(device)


def _folder(settings: Settings) -> Path:
    """The folder of a model; of a hub id a copy of its JSON files.

    Raises:
        RelevanceError: no such folder, or an unreachable hub id.
    """
    if "path" in settings:
        if not Path(settings["path"]).is_dir():
            raise _wrong_model(settings, "does not exist as a folder")
        return Path(settings["path"])
    if Path(settings["id"]).exists():  # transformers would load it
        raise _wrong_model(settings, "is a folder here as well. Name it in 'path' in place of 'id', or rename it")
    with _explained(settings):
        return Path(
            huggingface_hub.snapshot_download(
                settings["id"], revision=settings.get("revision"), allow_patterns=["*.json"]
            )
        )


def _read_config(settings: Settings, subfolder: str = "") -> Any:
    """The config of a model, read before its weights."""
    if not (_folder(settings) / subfolder / "config.json").exists():
        raise _wrong_model(settings, "has no config.json")
    with _explained(settings):
        return transformers.AutoConfig.from_pretrained(
            _name(settings), revision=settings.get("revision"), subfolder=subfolder, trust_remote_code=False
        )


def _causal_architecture(config: Any) -> str | None:
    """The class of the causal language models of a family, if it has one."""
    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)


def _named(config: Any) -> str:
    """What a model is, for messages."""
    return " or ".join(config.architectures or [f"a model of the type {config.model_type} without an architecture"])


def _load_tokenizer(settings: Settings, subfolder: str = "") -> Any:
    """The tokenizer of a model; transformers makes an empty one for some families whose folder has none."""
    with _explained(settings):
        if "auto_map" in settings_of(_name(settings), _folder(settings) / subfolder):
            raise _wrong_model(settings, FOREIGN_CODE)
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            _name(settings), revision=settings.get("revision"), subfolder=subfolder, trust_remote_code=False
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise _wrong_model(settings, "has no tokenizer")
    return tokenizer


def _load(settings: Settings, loader: Any, device: str, subfolder: str = "", attention: str | None = None) -> Any:
    """A model for inference, all of its weights there but those of the pooler, which is not used."""
    with _explained(settings):
        model, info = loader.from_pretrained(
            _name(settings),
            revision=settings.get("revision"),
            subfolder=subfolder,
            dtype=getattr(torch, settings.get("dtype", "float32")),
            attn_implementation=attention,
            output_loading_info=True,
            trust_remote_code=False,
        )
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:  # transformers fills them with random numbers
        raise _wrong_model(settings, f"lacks {len(missing)} of its weights ({', '.join(missing[:3])})")
    left_out = without_place(info["unexpected_keys"])
    if left_out and loader is transformers.AutoModelForCausalLM:  # encoders come with heads, which are not used
        raise _wrong_model(settings, f"has weights that its config has no place for ({', '.join(left_out[:3])})")
    return model.to(device).eval()


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    """Turn what the hub and the loaders raise into one message."""
    try:
        yield
    except RelevanceError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise _wrong_model(settings, FOREIGN_CODE) from None
        reason = " ".join(str(error).split())[:300].rstrip(".")
        remedy = (
            "Check the files in the folder"
            if "path" in settings
            else "If it is gated, log in with: hf auth login. Without network, name the folder of a copy"
        )
        raise _wrong_model(settings, f"cannot be loaded: {reason}. {remedy}") from None


def _key(settings: Settings) -> str:
    """The key that names the model."""
    return f"metrics.relevance.{'path' if 'path' in settings else 'id'}"


def _name(settings: Settings) -> str:
    """The model's folder or hub id."""
    return str(settings["path"] if "path" in settings else settings["id"])


def _wrong_model(settings: Settings, problem: str) -> RelevanceError:
    return RelevanceError(f"{_key(settings)}: the model '{_name(settings)}' {problem}. {EXPECTED[settings['kind']]}.")


def _read_json(path: Path) -> Settings:
    document: Settings = json.loads(path.read_text(encoding="utf-8"))
    return document


KINDS: dict[str, Callable[[Settings, Sequence[Pair], str, int], np.ndarray]] = {
    "embedding": _by_embedding,
    "judge": _by_judge,
}
"""How each kind scores pairs: settings, distinct pairs, device and batch size to float64 `[pair]`."""
