"""Relevance of answers, against vectors pooled by hand and probabilities of a full forward, both in float64."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import tokenizers
import torch
import transformers

from engines.families import CONTEXT, FAMILIES, VOCABULARY, WIDTH
from langneurons import artifacts
from langneurons.models import relevance
from langneurons.models.relevance import RelevanceError, score
from scripts import score_relevance

POSITIONS = 24
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "{question}", "{answer}"]
WORDS += [f"t{number}" for number in range(len(WORDS), VOCABULARY)]
IDS = {word: number for number, word in enumerate(WORDS)}
PAIRS = [
    ("t10 t11 t12", "t10 t11 t13 t14 t15 t16 t17 t18"),
    ("t20", "t21"),
    ("t10 t11 t12", "t30 t31 t32 t33"),
    ("t40 t41 t42 t43 t44 t45", "t40 t41"),
    ("t50 t51", "t50 t51"),
    ("t60 t61 t62 t63", "t99 t98 t97 t96 t95 t94 t93 t92 t91 t90 t89"),
]
TOLERANCE = 1e-4
"""Allowed difference of a score in float32 from that in float64: hundreds of times what is seen, as nothing bounds how
far two layers and their norms carry a rounding; a tenth of the least that a wrong reading makes of any score here."""


def ids(text: str) -> list[int]:
    """Tokens of a text, without special ones."""
    return [IDS[word] for word in text.split()]


def word_tokenizer(begin: str = "", end: str = "", **options: Any) -> Any:
    """A tokenizer of `WORDS`, with a token before and after every text."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(IDS, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    marks = [(mark, IDS[mark]) for mark in (begin, end) if mark]
    backend.post_processor = tokenizers.processors.TemplateProcessing(f"{begin} $A {end}".strip(), special_tokens=marks)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **options)


def randomised(model: Any) -> Any:
    """A model whose vectors depend much on its input."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 1.5 / math.sqrt(WIDTH), generator=generator)
            else:
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=generator))
    return model.eval()


def sizes(config: Any, positions: int = POSITIONS) -> Any:
    return config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=positions,
    )


@pytest.fixture(scope="module")
def saved_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "encoder"
    randomised(transformers.BertModel(sizes(transformers.BertConfig))).save_pretrained(folder)
    word_tokenizer("[CLS]", "[SEP]", pad_token="[PAD]").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "judge"
    FAMILIES["llama"].build().save_pretrained(folder)
    word_tokenizer("[CLS]", bos_token="[CLS]", eos_token="[SEP]").save_pretrained(folder)
    return folder


@pytest.fixture
def encoder(saved_encoder: Path, tmp_path: Path) -> Path:
    """A copy that tests may change."""
    return Path(shutil.copytree(saved_encoder, tmp_path / "encoder"))


@pytest.fixture
def judge(saved_judge: Path, tmp_path: Path) -> Path:
    """A copy that tests may change."""
    return Path(shutil.copytree(saved_judge, tmp_path / "judge"))


# -- by hand ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def vector(folder: Path, tokens: list[int], pooling: str = "mean") -> np.ndarray:
    """The vector of one text in float64, from a model of its own and without any padding."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    hidden = model(input_ids=torch.tensor([tokens])).last_hidden_state[0].numpy()
    pooled = hidden.mean(0) if pooling == "mean" else hidden[0]
    return pooled / math.sqrt((pooled**2).sum())


def cosine(folder: Path, question: str, answer: str, longest: int = POSITIONS, pooling: str = "mean") -> float:
    cut = [[IDS["[CLS]"], *ids(text)[: longest - 2], IDS["[SEP]"]] for text in (question, answer)]
    first, second = (vector(folder, tokens, pooling) for tokens in cut)
    return float(first @ second)


@torch.no_grad()
def probability(model: Any, prompt: list[int], word: list[int]) -> float:
    """The probability of a word after a prompt, from the logits of all positions."""
    logits = model(input_ids=torch.tensor([prompt + word])).logits[0].double().numpy()
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    shares = exponents / exponents.sum(-1, keepdims=True)
    return math.prod(shares[len(prompt) - 1 + step, token] for step, token in enumerate(word))


def share(model: Any, prompt: list[int], yes: list[int], no: list[int]) -> float:
    first, second = (probability(model, prompt, word) for word in (yes, no))
    return first / (first + second)


def log_odds(scores: Any) -> np.ndarray:
    """Scores near 0 spread out, so that an error in a small probability shows."""
    return np.log(np.asarray(scores) / (1 - np.asarray(scores)))


def judge_settings(folder: Path, **changes: Any) -> dict[str, Any]:
    template = "t101 {question} t102 {answer} t103"
    return {"kind": "judge", "path": str(folder), "template": template, "accept": " t110", "reject": " t111", **changes}


def embedding_settings(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"kind": "embedding", "path": str(folder), **changes}


def prompt_of(question: str, answer: str) -> list[int]:
    return [IDS["[CLS]"], *ids(f"t101 {question} t102 {answer} t103")]


# -- embedding --------------------------------------------------------------------------------------------------------


def test_an_embedding_scores_the_cosine_of_mean_vectors(saved_encoder: Path) -> None:
    scores = score(embedding_settings(saved_encoder), PAIRS)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, [cosine(saved_encoder, *pair) for pair in PAIRS], atol=TOLERANCE, rtol=0)
    assert scores.std() > 0.05
    assert scores[4] == pytest.approx(1, abs=TOLERANCE)  # a text and itself
    assert (np.abs(scores) <= 1).all()


def test_batches_change_no_embedding_score(saved_encoder: Path) -> None:
    settings = embedding_settings(saved_encoder)
    alone = [score(settings, [pair])[0] for pair in PAIRS]
    for batch_size in (1, 2, 5, 100):
        np.testing.assert_allclose(score(settings, PAIRS, batch_size=batch_size), alone, atol=TOLERANCE, rtol=0)


def test_prefixes_stand_before_questions_and_answers(saved_encoder: Path) -> None:
    plain = score(embedding_settings(saved_encoder), PAIRS)
    prefixed = score(embedding_settings(saved_encoder, query_prefix="t150 t151 ", answer_prefix="t152 "), PAIRS)
    expected = [cosine(saved_encoder, f"t150 t151 {question}", f"t152 {answer}") for question, answer in PAIRS]
    np.testing.assert_allclose(prefixed, expected, atol=TOLERANCE, rtol=0)
    assert (np.abs(prefixed - plain) > 1e-3).all()


def test_a_number_format_of_less_precision(saved_encoder: Path) -> None:
    exact = score(embedding_settings(saved_encoder), PAIRS)
    rough = score(embedding_settings(saved_encoder, dtype="bfloat16"), PAIRS)
    assert 1e-5 < np.abs(rough - exact).max() < 0.1


def test_a_tokenizer_without_padding_token(encoder: Path) -> None:
    expected = score(embedding_settings(encoder), PAIRS)
    word_tokenizer("[CLS]", "[SEP]").save_pretrained(encoder)
    np.testing.assert_allclose(score(embedding_settings(encoder), PAIRS), expected, atol=TOLERANCE, rtol=0)


def test_texts_without_a_token_score_0(encoder: Path) -> None:
    backend = word_tokenizer().backend_tokenizer
    backend.normalizer = tokenizers.normalizers.Replace("t199", "")
    backend.post_processor = tokenizers.processors.TemplateProcessing("$A")
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(encoder)
    scores = score(embedding_settings(encoder), [("t20", "t199"), ("t20", "t21")])
    assert scores[0] == 0
    assert scores[1] == pytest.approx(vector(encoder, ids("t20")) @ vector(encoder, ids("t21")), abs=TOLERANCE)


# -- embedding: truncation --------------------------------------------------------------------------------------------

LONG = " ".join(f"t{number}" for number in range(100, 140))


def test_long_texts_are_cut_to_the_positions_of_the_encoder(saved_encoder: Path) -> None:
    found = score(embedding_settings(saved_encoder), [("t20", LONG), ("t20 t21", "t22")])
    assert found[0] == pytest.approx(cosine(saved_encoder, "t20", LONG, POSITIONS), abs=TOLERANCE)
    assert found[1] == pytest.approx(cosine(saved_encoder, "t20 t21", "t22"), abs=TOLERANCE)


def test_long_texts_are_cut_to_the_length_of_the_tokenizer(encoder: Path) -> None:
    word_tokenizer("[CLS]", "[SEP]", pad_token="[PAD]", model_max_length=9).save_pretrained(encoder)
    found = score(embedding_settings(encoder), [("t20", LONG)])[0]
    assert found == pytest.approx(cosine(encoder, "t20", LONG, 9), abs=TOLERANCE)
    assert abs(found - cosine(encoder, "t20", LONG, 10)) > 1e-3


def test_positions_that_roberta_keeps_for_padding_are_not_used(tmp_path: Path) -> None:
    config = sizes(transformers.RobertaConfig)
    config.pad_token_id = 1
    randomised(transformers.RobertaModel(config)).save_pretrained(tmp_path)
    word_tokenizer("t7", "[SEP]", pad_token="[CLS]").save_pretrained(tmp_path)
    found = score(embedding_settings(tmp_path), [("t20", LONG), ("t20", "t21")])
    for one, answer in zip(found, (LONG, "t21"), strict=True):
        cut = [[IDS["t7"], *ids(text)[: POSITIONS - 2 - 2], IDS["[SEP]"]] for text in ("t20", answer)]
        assert one == pytest.approx(vector(tmp_path, cut[0]) @ vector(tmp_path, cut[1]), abs=TOLERANCE)


def test_encoders_without_positions_read_all(tmp_path: Path) -> None:
    config = transformers.FunnelConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, block_sizes=[1], n_head=2, d_head=16, d_inner=48, num_decoder_layers=1
    )
    randomised(transformers.FunnelModel(config)).save_pretrained(tmp_path)
    word_tokenizer("[CLS]", "[SEP]", pad_token="[PAD]").save_pretrained(tmp_path)
    found = score(embedding_settings(tmp_path), [("t20", LONG)])[0]
    assert found == pytest.approx(cosine(tmp_path, "t20", LONG, 1000), abs=TOLERANCE)


# -- embedding: folders of sentence-transformers ----------------------------------------------------------------------


def as_sentence_transformers(
    folder: Path, pooling: dict[str, Any], text: dict[str, Any] | None = None, subfolder: str = "", more: str = ""
) -> None:
    """Add the files that sentence-transformers writes beside an encoder."""
    names = [("Transformer", subfolder), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    names += [(more, f"3_{more}")] * bool(more)
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        for number, (name, path) in enumerate(names)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if subfolder:
        (folder / subfolder).mkdir()
        for path in folder.glob("*.*"):
            if path.name != "modules.json":
                path.rename(folder / subfolder / path.name)
    if text is not None:
        (folder / subfolder / "sentence_bert_config.json").write_text(json.dumps(text))


FLAGS = {"word_embedding_dimension": WIDTH, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({**FLAGS, "pooling_mode_mean_tokens": True}, "mean"),
        ({**FLAGS, "pooling_mode_cls_token": True, "include_prompt": True}, "cls"),
        ({"word_embedding_dimension": WIDTH}, "mean"),
        ({"embedding_dimension": WIDTH, "pooling_mode": "mean"}, "mean"),
        ({"embedding_dimension": WIDTH, "pooling_mode": "cls"}, "cls"),
        ({"embedding_dimension": WIDTH, "pooling_mode": ["cls"]}, "cls"),
    ],
)
def test_pooling_is_that_of_the_folder(encoder: Path, pooling: dict[str, Any], expected: str) -> None:
    as_sentence_transformers(encoder, pooling)
    hand = {one: [cosine(encoder, *pair, pooling=one) for pair in PAIRS] for one in ("mean", "cls")}
    scores = score(embedding_settings(encoder), PAIRS, batch_size=3)
    np.testing.assert_allclose(scores, hand[expected], atol=TOLERANCE, rtol=0)
    assert not np.allclose(hand["mean"], hand["cls"], atol=0.01)


@pytest.mark.parametrize("subfolder", ["", "0_Transformer"])
def test_length_and_case_are_those_of_the_folder(encoder: Path, subfolder: str) -> None:
    as_sentence_transformers(
        encoder, {"pooling_mode": "mean"}, {"max_seq_length": 7, "do_lower_case": True}, subfolder=subfolder
    )
    found = score(embedding_settings(encoder), [("t20", LONG.upper())])[0]
    assert found == pytest.approx(cosine(encoder / subfolder, "t20", LONG, 7), abs=TOLERANCE)


def test_a_folder_may_leave_the_length_open(encoder: Path) -> None:
    as_sentence_transformers(encoder, {"pooling_mode": "mean"}, {"max_seq_length": None, "do_lower_case": False})
    found = score(embedding_settings(encoder), [("t20", LONG)])[0]
    assert found == pytest.approx(cosine(encoder, "t20", LONG), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("pooling", "named"),
    [
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({**FLAGS, "pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": ["cls", "mean"]}, "cls and mean"),
        ({**FLAGS, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "mean_tokens and max_tokens"),
    ],
)
def test_other_pooling_is_refused(encoder: Path, pooling: dict[str, Any], named: str) -> None:
    as_sentence_transformers(encoder, pooling)
    with pytest.raises(RelevanceError, match=rf"^metrics\.relevance\.path: .*pools tokens by {named}, but only mean"):
        score(embedding_settings(encoder), PAIRS)


def test_other_modules_are_refused(encoder: Path) -> None:
    as_sentence_transformers(encoder, {"pooling_mode": "mean"}, more="Dense")
    with pytest.raises(RelevanceError, match=r"consists of Transformer, Pooling, Normalize, Dense .*but only"):
        score(embedding_settings(encoder), PAIRS)


@pytest.mark.parametrize("content", ["modules: none", '{"type": "Transformer"}', "[{}]"])
def test_damaged_list_of_modules(encoder: Path, content: str) -> None:
    (encoder / "modules.json").write_text(content)
    with pytest.raises(RelevanceError, match=r"^metrics\.relevance\.path: .*encoder' cannot be loaded: .*Check the"):
        score(embedding_settings(encoder), PAIRS)


# -- judge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("words", [("t110", "t111"), ("t110 t112 t113", "t111"), ("t110 t112", "t110 t114")])
def test_a_judge_scores_the_share_of_yes(saved_judge: Path, words: tuple[str, str], batch_size: int) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(saved_judge, dtype=torch.float64).eval()
    expected = [share(model, prompt_of(*pair), ids(words[0]), ids(words[1])) for pair in PAIRS]
    settings = judge_settings(saved_judge, accept=f" {words[0]}", reject=f" {words[1]}")
    scores = score(settings, PAIRS, batch_size=batch_size)
    np.testing.assert_allclose(log_odds(scores), log_odds(expected), atol=10 * TOLERANCE, rtol=0)
    assert log_odds(scores).std() > 1
    reversed_words = score(settings | {"accept": settings["reject"], "reject": settings["accept"]}, PAIRS)
    np.testing.assert_allclose(reversed_words, 1 - scores, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "mistral", "bloom", "opt-norm-after", "falcon-with-alibi"])
def test_padding_changes_no_judgement_of_any_family(name: str, tmp_path: Path) -> None:
    """Positions that are counted differently, softcapped and windowed attention."""
    family = FAMILIES[name]
    model = family.build()
    model.save_pretrained(tmp_path)
    word_tokenizer("[CLS]", bos_token="[CLS]").save_pretrained(tmp_path)
    expected = [share(model.double(), prompt_of(*pair), ids("t110 t112"), ids("t111")) for pair in PAIRS]
    scores = score(judge_settings(tmp_path, accept=" t110 t112"), PAIRS)
    np.testing.assert_allclose(log_odds(scores), log_odds(expected), atol=10 * TOLERANCE, rtol=0)
    assert log_odds(scores).std() > 0.1


def test_words_and_their_defaults(judge: Path) -> None:
    tokens = {{"t198": "yes", "t199": "no"}.get(word, word): number for word, number in IDS.items()}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(tokens, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(judge)
    settings = {"kind": "judge", "path": str(judge), "template": "{question} t102 {answer} t103\n"}
    model = transformers.AutoModelForCausalLM.from_pretrained(judge, dtype=torch.float64).eval()
    expected = share(model, ids("t20 t102 t21 t103"), ids("t198"), ids("t199"))
    assert score(settings, [("t20", "t21")])[0] == pytest.approx(expected, abs=TOLERANCE)


def test_question_and_answer_are_inserted_as_they_are(saved_judge: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(saved_judge, dtype=torch.float64).eval()
    pairs = [("t20 {answer}", "t21 {question} t22"), ("{question}", "{answer}")]
    expected = [share(model, prompt_of(*pair), ids("t110"), ids("t111")) for pair in pairs]
    np.testing.assert_allclose(score(judge_settings(saved_judge), pairs), expected, atol=TOLERANCE, rtol=0)


def test_placeholders_may_stand_in_any_order_and_twice(saved_judge: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(saved_judge, dtype=torch.float64).eval()
    settings = judge_settings(saved_judge, template="{answer} t102 {question} t103 {answer} t104")
    prompt = [IDS["[CLS]"], *ids("t21 t22 t102 t20 t103 t21 t22 t104")]
    expected = share(model, prompt, ids("t110"), ids("t111"))
    assert score(settings, [("t20", "t21 t22")])[0] == pytest.approx(expected, abs=TOLERANCE)


def test_an_end_that_the_tokenizer_adds_is_left_out(judge: Path) -> None:
    expected = score(judge_settings(judge), PAIRS)
    word_tokenizer("[CLS]", "[SEP]", bos_token="[CLS]", eos_token="[SEP]").save_pretrained(judge)
    np.testing.assert_array_equal(score(judge_settings(judge), PAIRS), expected)
    ended = score(judge_settings(judge, template="t101 {question} t102 {answer} t103 [SEP]"), PAIRS)
    assert (np.abs(ended - expected) > TOLERANCE).all()  # the template's own stays


def byte_tokenizer() -> Any:
    """Bytes, and one token for ` yes`, as tokenizers of GPT-2's kind have."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "y"), ("Ġy", "e"), ("Ġye", "s")]
    kept = [letter for letter in alphabet if letter.isascii()] + ["Ġ", "Ċ"]
    vocabulary = {token: number for number, token in enumerate(kept + ["".join(pair) for pair in merges])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend), vocabulary


def test_words_are_cut_as_they_follow_the_template(judge: Path) -> None:
    tokenizer, vocabulary = byte_tokenizer()
    for path in judge.glob("token*"):
        path.unlink()
    tokenizer.save_pretrained(judge)
    model = transformers.AutoModelForCausalLM.from_pretrained(judge, dtype=torch.float64).eval()
    prompt = [vocabulary[letter] for letter in "a?b!Reply:"]
    settings = judge_settings(judge, template="{question}{answer}Reply:", accept=" yes", reject=" no")
    yes, no = [vocabulary["Ġyes"]], [vocabulary[letter] for letter in "Ġno"]
    assert score(settings, [("a?", "b!")])[0] == pytest.approx(share(model, prompt, yes, no), abs=TOLERANCE)
    yes, no = ([vocabulary[letter] for letter in word] for word in ("yes", "no"))
    found = score(settings | {"accept": "yes", "reject": "no"}, [("a?", "b!")])[0]
    assert found == pytest.approx(share(model, prompt, yes, no), abs=TOLERANCE)
    trap = settings | {"template": "{question}{answer}Reply: ", "accept": "yes", "reject": "no"}
    with pytest.raises(RelevanceError, match=r"^metrics\.relevance\.accept: 'yes' has no tokens of its own .*' yes'"):
        score(trap, [("a?", "b!")])


# -- both -------------------------------------------------------------------------------------------------------------


def test_equal_pairs_are_computed_once(saved_encoder: Path, saved_judge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    batches = relevance._batches

    def counted(rows: Sequence[Sequence[int]], *args: Any) -> Any:
        read.append(len(rows))
        return batches(rows, *args)

    monkeypatch.setattr(relevance, "_batches", counted)
    pairs = [PAIRS[0], PAIRS[2], PAIRS[0], PAIRS[1], PAIRS[0]]
    for settings, rows in ((embedding_settings(saved_encoder), 5), (judge_settings(saved_judge), 3)):
        scores = score(settings, pairs)
        assert read.pop() == rows  # texts of both sides; prompts
        assert not read
        assert scores[0] == scores[2] == scores[4]
        assert len(set(scores.tolist())) == 3


def test_empty_answers_score_0_without_running(saved_encoder: Path, saved_judge: Path) -> None:
    for settings in (embedding_settings(saved_encoder), judge_settings(saved_judge)):
        scores = score(settings, [("t20", ""), PAIRS[0], ("t21", " \n")])
        assert scores.tolist()[::2] == [0, 0]
        assert scores[1] == pytest.approx(score(settings, [PAIRS[0]])[0], abs=TOLERANCE)
    scores = score(embedding_settings(Path("/no/such/folder")), [("t20", "")])
    assert scores.dtype == np.float64
    assert scores.tolist() == [0]
    assert score(embedding_settings(Path("/no/such/folder")), []).shape == (0,)


def test_the_number_of_threads_is_set(saved_encoder: Path) -> None:
    before = torch.get_num_threads()
    try:
        score(embedding_settings(saved_encoder), PAIRS[:1], threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


# -- mistakes ---------------------------------------------------------------------------------------------------------


def refused(settings: dict[str, Any], pattern: str, **options: Any) -> None:
    with pytest.raises(RelevanceError, match=pattern) as caught:
        score(settings, PAIRS, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


BOTH = pytest.mark.parametrize(
    ("settings", "expected"), [(embedding_settings, "with an encoder"), (judge_settings, "causal language model")]
)


@pytest.mark.parametrize("path", ["/no/such/folder", "./no-such-folder", "no/such/folder"])
@BOTH
def test_missing_folder(settings: Any, expected: str, path: str) -> None:
    refused(
        settings(Path(path)) | {"path": path},
        rf"^metrics\.relevance\.path: the model '{path}' does not exist .*{expected}",
    )


@BOTH
def test_folder_that_is_no_model(settings: Any, expected: str, tmp_path: Path) -> None:
    (tmp_path / "answers.txt").write_text("yes")
    refused(settings(tmp_path), rf"^metrics\.relevance\.path: .*has no config\.json\. .*{expected}")


@pytest.mark.parametrize("content", ["{}", "model: bert", '{"model_type": "from-the-future"}'])
@BOTH
def test_config_of_no_model(settings: Any, expected: str, encoder: Path, content: str) -> None:
    (encoder / "config.json").write_text(content)
    refused(settings(encoder), rf"^metrics\.relevance\.path: .*cannot be loaded: .*Check the files.*{expected}")


def test_an_encoder_is_no_judge(saved_encoder: Path) -> None:
    refused(judge_settings(saved_encoder), r"path: .*is no causal language model, but BertModel\. kind: judge expects")


def test_a_judge_is_no_encoder(saved_judge: Path) -> None:
    refused(embedding_settings(saved_judge), r"path: .*is no encoder, but LlamaForCausalLM\. kind: embedding expects")


def test_a_translation_model_is_neither(encoder: Path) -> None:
    config = transformers.T5Config(architectures=["T5ForConditionalGeneration"])
    config.save_pretrained(encoder)
    refused(embedding_settings(encoder), "is no encoder, but T5ForConditionalGeneration")
    refused(judge_settings(encoder), "is no causal language model, but T5ForConditionalGeneration")


def test_a_judge_without_architecture(judge: Path) -> None:
    config = json.loads((judge / "config.json").read_text())
    del config["architectures"]
    (judge / "config.json").write_text(json.dumps(config))
    refused(judge_settings(judge), "is no causal language model, but a model of the type llama without an architecture")


def test_folder_without_tokenizer(encoder: Path, judge: Path) -> None:
    """transformers makes a tokenizer of nothing but special tokens for the one and refuses the other."""
    for path in (*encoder.glob("token*"), *judge.glob("token*")):
        path.unlink()
    refused(
        embedding_settings(encoder), r"^metrics\.relevance\.path: .*encoder' has no tokenizer\. .*and its tokenizer"
    )
    refused(judge_settings(judge), r"^metrics\.relevance\.path: .*judge' .*tokenizer")


@BOTH
def test_folder_without_weights(settings: Any, expected: str, encoder: Path, judge: Path) -> None:
    folder = encoder if settings is embedding_settings else judge
    (folder / "model.safetensors").unlink()
    refused(settings(folder), rf"^metrics\.relevance\.path: .*cannot be loaded: .*model\.safetensors.*{expected}")


def test_weights_that_lack_a_matrix(encoder: Path) -> None:
    """The pooler, which many encoders come without, is not used."""
    weights = encoder / "model.safetensors"
    expected = score(embedding_settings(encoder), PAIRS)
    state = safetensors.torch.load_file(weights)
    for key in [key for key in state if key.startswith("pooler.")]:
        del state[key]
    safetensors.torch.save_file(state, weights, metadata={"format": "pt"})
    np.testing.assert_array_equal(score(embedding_settings(encoder), PAIRS), expected)
    del state["encoder.layer.1.output.dense.weight"]
    safetensors.torch.save_file(state, weights, metadata={"format": "pt"})
    refused(embedding_settings(encoder), r"lacks 1 of its weights \(encoder\.layer\.1\.output\.dense\.weight\)")


@BOTH
def test_scores_that_are_not_finite(settings: Any, expected: str, encoder: Path, judge: Path) -> None:
    folder = encoder if settings is embedding_settings else judge
    state = safetensors.torch.load_file(folder / "model.safetensors")
    next(value for key, value in state.items() if "layer.1" in key or "layers.1" in key).fill_(float("nan"))
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    refused(settings(folder), r"^metrics\.relevance\.path: .*NaN or infinite\..*metrics\.relevance\.dtype")


@pytest.mark.parametrize(
    ("template", "missing"),
    [
        ("t101 {question} t103", r"\{answer\} is missing"),
        ("t101 {answer} t103", r"\{question\} is missing"),
        ("t101 {Question} {0}", r"\{question\} and \{answer\} is missing"),
    ],
)
def test_template_without_its_placeholders(template: str, missing: str) -> None:
    refused(judge_settings(Path("/unused"), template=template), rf"^metrics\.relevance\.template: {missing}\. Write it")


@pytest.mark.parametrize("key", ["accept", "reject"])
@pytest.mark.parametrize("word", ["", " ", "t110"])
def test_words_that_do_not_follow_the_template(saved_judge: Path, key: str, word: str) -> None:
    refused(
        judge_settings(saved_judge, **{key: word}),
        rf"^metrics\.relevance\.{key}: '{word}' has no tokens of its own after the end of metrics\.relevance\.template",
    )


def test_words_that_the_judge_cannot_tell_apart(saved_judge: Path) -> None:
    refused(
        judge_settings(saved_judge, accept=" ja", reject=" nein"),
        r"metrics\.relevance\.accept and .*reject are the same to",
    )


def test_a_text_that_exceeds_the_context_of_the_judge(saved_judge: Path) -> None:
    settings = judge_settings(saved_judge)
    fitting = " ".join(["t21"] * (CONTEXT - 5))  # and begin, three words of the template, and the question
    assert 0 < score(settings, [("t20", fitting)])[0] < 1
    with pytest.raises(RelevanceError, match=rf"take {CONTEXT + 1} tokens .* no more than {CONTEXT}\. Use a judge"):
        score(settings, [("t20", f"{fitting} t22")])
    with pytest.raises(RelevanceError, match=rf"take {CONTEXT + 1} tokens"):
        score(settings | {"reject": " t111 t112"}, [("t20", fitting)])


def test_gpu_without_cuda(saved_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(embedding_settings(saved_encoder), r"metrics\.relevance asks for 1 GPU\(s\), .*'gpus: 0'", gpus=1)


def test_unknown_kind(saved_encoder: Path) -> None:
    refused({"kind": "rouge", "path": str(saved_encoder)}, r"kind: 'rouge' is unknown\. .*embedding, judge")


def of_hub(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The settings of a folder for a model of the hub."""
    return {key: value for key, value in settings.items() if key != "path"} | {"id": name}


@BOTH
def test_hub_id_out_of_reach(settings: Any, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Read once from HF_HUB_OFFLINE and HF_HOME, when huggingface_hub is imported.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    hub = of_hub(settings(Path()), "langneurons-tests/no-such-model")
    refused(hub, rf"^metrics\.relevance\.id: .*no-such-model' cannot be loaded: .*hf auth login.*{expected}")


def test_a_hub_id_is_read_at_its_revision(saved_encoder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From a cache as downloads leave it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--langneurons-tests--encoder"
    shutil.copytree(saved_encoder, repository / "snapshots" / commit)
    as_sentence_transformers(repository / "snapshots" / commit, {"pooling_mode": "cls"}, {"max_seq_length": 7})
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    settings = of_hub(embedding_settings(Path(), revision="v1"), "langneurons-tests/encoder")
    found = score(settings, [("t20", LONG)])[0]
    assert found == pytest.approx(cosine(saved_encoder, "t20", LONG, 7, pooling="cls"), abs=TOLERANCE)
    refused(settings | {"revision": "v2"}, "encoder' cannot be loaded")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "langneurons-tests" / "encoder").mkdir(parents=True)
    refused(settings, r"^metrics\.relevance\.id: .*encoder' is a folder here as well\. Name it in 'path'")


# -- script -----------------------------------------------------------------------------------------------------------


def run_script(folder: Path, texts: pd.DataFrame, settings: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, Any]]:
    artifacts.write_table(folder / "text.parquet", "text-metrics", texts)
    arguments = ["--settings", json.dumps(settings), "--text", str(folder / "text.parquet"), "--threads", "1"]
    score_relevance.main([*arguments, "--batch-size", "2", "--output", str(folder / "relevance.parquet")])
    return artifacts.read_table(folder / "relevance.parquet", "relevance")


TEXTS = pd.DataFrame(
    {
        "perturbation": ["none", "none", "deactivate-de", "deactivate-de"],
        "language": ["de", "en", "de", "en"],
        "id": ["de-021", "en-021", "de-021", "en-021"],
        "input": ["t101 t20 t102", "t101 t21 t22 t102"] * 2,
        "output": ["t20 t30", "t31 t32 t33", "t20 t30", ""],
        "words": [2, 3, 2, 0],
    }
)


@pytest.mark.parametrize(
    ("columns", "read"),
    [
        ({}, ["t101 t20 t102", "t101 t21 t22 t102", "t101 t20 t102"]),
        ({"question": ["t20", "t21 t22"] * 2}, ["t20", "t21 t22", "t20"]),
        ({"question": ["t20", None] * 2}, ["t20", "t101 t21 t22 t102", "t20"]),
    ],
    ids=["inputs", "questions", "a question missing"],
)
def test_the_script_scores_every_output(
    saved_encoder: Path, tmp_path: Path, columns: dict[str, list[Any]], read: list[str]
) -> None:
    settings = embedding_settings(saved_encoder)
    table, metadata = run_script(tmp_path, TEXTS.assign(**columns), settings)
    assert table.columns.tolist() == ["perturbation", "language", "id", "relevance"]
    keys = ["perturbation", "language", "id"]
    pd.testing.assert_frame_equal(table[keys], TEXTS[keys])
    expected = [cosine(saved_encoder, *pair) for pair in zip(read, TEXTS["output"], strict=False)]
    np.testing.assert_allclose(table["relevance"], [*expected, 0], atol=TOLERANCE, rtol=0)
    assert table["relevance"].dtype == np.float64
    assert metadata == {"settings": settings}


def test_the_script_runs_a_judge(saved_judge: Path, tmp_path: Path) -> None:
    table, _ = run_script(tmp_path, TEXTS, judge_settings(saved_judge))
    pairs = list(zip(TEXTS["input"], TEXTS["output"], strict=True))
    np.testing.assert_array_equal(table["relevance"], score(judge_settings(saved_judge), pairs, batch_size=2))
