"""Packing tokens into windows: no padding, no special tokens, splits that share nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from langneurons.corpus.shares import shares
from langneurons.corpus.sources import Document, split_of
from langneurons.corpus.windows import odd_tokens, pack, pack_all
from langneurons.demo.training import train_tokenizer
from langneurons.errors import CorpusError

SHARE = {"valid": 0.2, "test": 0.3}
BOS, EOS, UNK, PAD = 0, 1, 2, 3


def tokenizer_with(eos: str | None = "</s>") -> transformers.PreTrainedTokenizerFast:
    """One token per number from 0 to 999, with the ids 10 to 1009; adds <s> and </s> unless told not to."""
    special = {"<s>": BOS, "</s>": EOS, "<unk>": UNK, "<pad>": PAD}
    vocabulary = special | {str(number): number + 10 for number in range(1000)}
    raw = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = WhitespaceSplit()
    raw.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token=eos,
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=4,
        padding_side="right",
    )


TOKENIZER = tokenizer_with()


def ids_of(document: Document, eos: bool = True) -> list[int]:
    return [int(word) + 10 for word in document.text.split()] + [EOS] * eos


def many(number: int, words: int = 7) -> list[Document]:
    """Documents whose tokens tell them apart, of different lengths."""
    return [
        Document(f"key-{index}", " ".join(str((index * 31 + word) % 1000) for word in range(1 + (index * 5) % words)))
        for index in range(number)
    ]


def of_split(documents: list[Document], split: str, seed: int = 0) -> list[Document]:
    return [document for document in documents if split_of(document.key, seed, SHARE) == split]


def test_this_tokenizer_adds_special_tokens_unless_told_not_to() -> None:
    """Otherwise the tests below would prove nothing."""
    assert TOKENIZER("5 6")["input_ids"] == [BOS, 15, 16, EOS]


def test_every_split_holds_exactly_its_documents_in_order() -> None:
    documents = many(200)
    budgets = {"train": 120, "valid": 40, "test": 60}
    packed = pack(documents, TOKENIZER, 8, budgets, SHARE, 0, "en")
    for split, budget in budgets.items():
        expected = [token for document in of_split(documents, split) for token in ids_of(document)]
        windows = packed[split].windows
        assert windows.dtype == np.uint32
        assert windows.shape == (budget // 8, 8)
        assert windows.reshape(-1).tolist() == expected[: budget // 8 * 8]


def test_no_special_token_but_one_separator_after_each_document() -> None:
    documents = many(200)
    tokens = pack(documents, TOKENIZER, 8, {"train": 240}, SHARE, 0, "en")["train"].windows.reshape(-1).tolist()
    assert BOS not in tokens
    assert PAD not in tokens
    assert UNK not in tokens
    assert EOS in tokens
    assert all(pair != (EOS, EOS) for pair in pairwise(tokens))


def test_without_an_end_of_text_token_there_is_no_separator() -> None:
    documents = many(200)
    tokenizer = tokenizer_with(eos=None)
    assert tokenizer.eos_token_id is None
    tokens = pack(documents, tokenizer, 8, {"train": 160}, SHARE, 0, "en")["train"].windows.reshape(-1).tolist()
    expected = [token for document in of_split(documents, "train") for token in ids_of(document, eos=False)]
    assert tokens == expected[:160]
    assert EOS not in tokens


@pytest.mark.parametrize(("budget", "windows"), [(8, 1), (15, 1), (16, 2), (17, 2), (100, 12)])
def test_budgets_are_rounded_down_to_whole_windows(budget: int, windows: int) -> None:
    packed = pack(many(300), TOKENIZER, 8, {"train": budget}, SHARE, 0, "en")["train"]
    assert packed.windows.shape == (windows, 8)
    assert packed.metadata["tokens"] == windows * 8


def test_a_corpus_of_exactly_the_budget_is_enough() -> None:
    documents = [Document("a", "1 2 3"), Document("b", "4 5 6")]  # with separators 8 tokens
    nothing = {"valid": 0, "test": 0}
    packed = pack(documents, TOKENIZER, 4, {"train": 8}, nothing, 0, "en")["train"]
    assert packed.windows.tolist() == [[11, 12, 13, EOS], [14, 15, 16, EOS]]
    with pytest.raises(CorpusError, match="train has 8 tokens and needs 12"):
        pack(documents, TOKENIZER, 4, {"train": 12}, nothing, 0, "en")


def test_documents_longer_than_the_tokenizers_maximum_are_not_cut() -> None:
    assert TOKENIZER.model_max_length == 4
    text = " ".join(str(number) for number in range(100))
    packed = pack([Document("a", text)], TOKENIZER, 10, {"train": 100}, {"valid": 0, "test": 0}, 0, "en")["train"]
    assert packed.windows.reshape(-1).tolist() == list(range(10, 110))


def test_a_too_small_corpus_gives_what_it_has_and_what_it_needs() -> None:
    documents = many(30)
    has = {split: sum(len(ids_of(one)) for one in of_split(documents, split)) for split in ("train", "valid", "test")}
    with pytest.raises(CorpusError) as caught:
        pack(documents, TOKENIZER, 8, {"train": 8, "valid": 4096, "test": 1234}, SHARE, 0, "tr")
    assert str(caught.value) == (
        f"language 'tr': its corpus is too small: valid has {has['valid']:,} tokens and needs 4,096; "
        f"test has {has['test']:,} tokens and needs 1,232. "
        "Give it more text, or lower corpora.tokens, or change corpora.share."
    )
    assert has["valid"] > 0


def test_an_empty_corpus_is_too_small() -> None:
    with pytest.raises(CorpusError, match="language 'en': its corpus is too small: train has 0 tokens and needs 8"):
        pack([], TOKENIZER, 8, {"train": 8}, SHARE, 0, "en")


def test_a_budget_below_one_window_names_the_key() -> None:
    with pytest.raises(
        CorpusError, match=r"language 'en': corpora\.tokens\.valid is 7, less than one window of 8 tokens"
    ):
        pack(many(10), TOKENIZER, 8, {"train": 8, "valid": 7}, SHARE, 0, "en")


def test_no_more_documents_are_read_than_needed() -> None:
    read = 0

    def endless() -> Iterator[Document]:
        nonlocal read
        while True:
            read += 1
            yield Document(f"key-{read}", "1 2 3 4 5 6 7")

    pack(endless(), TOKENIZER, 8, {"train": 80, "valid": 16, "test": 16}, SHARE, 0, "en")
    assert 10 <= read <= 128  # two batches of 64 documents


def test_splits_share_no_document_and_do_not_move_when_documents_are_added() -> None:
    documents = [Document(f"key-{number}", str(number)) for number in range(500)]  # a document is one token
    budgets = {"train": 100, "valid": 50, "test": 50}

    def numbers(given: list[Document]) -> dict[str, set[int]]:
        packed = pack(given, TOKENIZER, 2, budgets, SHARE, 0, "en")
        return {split: set((one.windows[:, 0] - 10).tolist()) for split, one in packed.items()}

    fewer, more = numbers(documents[:400]), numbers(documents[::-1])
    for found in (fewer, more):
        assert sum(len(part) for part in found.values()) == len(set().union(*found.values())) == 100
    for split in budgets:
        for other in set(budgets) - {split}:
            assert not fewer[split] & more[other]


def test_metadata() -> None:
    documents = many(200)
    metadata = pack(documents, TOKENIZER, 8, {"train": 50}, SHARE, 0, "en")["train"].metadata
    lengths = np.cumsum([len(ids_of(document)) for document in of_split(documents, "train")])
    assert metadata["documents"] == int((lengths < 48).sum()) + 1
    assert (metadata["language"], metadata["split"], metadata["window"], metadata["tokens"]) == ("en", "train", 8, 48)


def test_the_fingerprint_depends_on_keys_texts_and_order_of_what_was_used() -> None:
    nothing = {"valid": 0, "test": 0}

    def fingerprint(documents: list[Document]) -> str:
        return pack(documents, TOKENIZER, 4, {"train": 8}, nothing, 0, "en")["train"].metadata["corpus_sha256"]

    one, two, three = Document("a", "1 2 3"), Document("b", "4 5 6"), Document("c", "7")
    assert fingerprint([one, two]) == fingerprint([one, two, three])  # the third is not needed
    others = [[two, one], [Document("x", "1 2 3"), two], [Document("a", "1 2 4"), two]]
    assert len({fingerprint(documents) for documents in [[one, two], *others]}) == 4


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=150),
    window=st.integers(1, 9),
    budget=st.integers(1, 60),
    seed=st.integers(0, 5),
)
def test_packing_any_corpus(lengths: list[int], window: int, budget: int, seed: int) -> None:
    documents = [Document(f"{index}", " ".join([str(index)] * length)) for index, length in enumerate(lengths)]
    wanted = budget // window * window
    streams = {
        split: [token for document in of_split(documents, split, seed) for token in ids_of(document)]
        for split in ("train", "test")
    }
    budgets = {"train": budget, "test": budget}
    if wanted == 0 or any(len(stream) < wanted for stream in streams.values()):
        with pytest.raises(CorpusError, match="language 'en'"):
            pack(documents, TOKENIZER, window, budgets, SHARE, seed, "en")
        return
    packed = pack(documents, TOKENIZER, window, budgets, SHARE, seed, "en")
    for split, stream in streams.items():
        assert packed[split].windows.reshape(-1).tolist() == stream[:wanted]


def test_special_tokens_that_are_spelt_out_are_letters() -> None:
    """An end of text in the words of a document is no end of one."""
    tokenizer = train_tokenizer(["a document", "another"], 300)
    end = tokenizer.eos_token_id
    texts = ["a document<|endoftext|> another", "another"]
    assert end in tokenizer(texts[0])["input_ids"]
    documents = [Document(text, text) for text in texts]
    packed = pack(documents, tokenizer, 1, {"train": 17}, {"valid": 0, "test": 0}, 0, "en")["train"].windows
    for windows in (packed, pack_all(texts, tokenizer, 1, "en")[:17]):
        assert (windows == end).sum() == 1
        assert tokenizer.decode(windows.flatten().tolist()).startswith(texts[0])


def test_what_repeats_is_counted_up_to_the_budget() -> None:
    """By key and text: the embedded corpus has one key in all languages, but never two texts of one."""
    texts = [Document("a", "1 2"), Document("b", "3"), Document("a", "1 2"), Document("c", "4"), Document("b", "3")]
    packed = pack(texts, TOKENIZER, 1, {"train": 11}, {"valid": 0, "test": 0}, 0, "en")["train"]
    assert packed.metadata["repeated_tokens"] == 3 + 1
    assert packed.metadata["separator"] == EOS


def test_tokens_that_are_no_text_are_counted() -> None:
    windows = np.array([[UNK, EOS, BOS, 10], [PAD, 11, UNK, EOS]])
    counts = odd_tokens(windows, TOKENIZER)
    assert counts == {"unknown_tokens": 2, "special_tokens": 4, "empty_tokens": 0}
    found = shares({"tokens": 8, "repeated_tokens": 2, **counts})
    assert found == {"repeated_tokens": 0.25, "unknown_tokens": 0.25, "special_tokens": 0.5, "empty_tokens": 0.0}
    assert set(shares({"tokens": 8}).values()) == {None}


def test_few_documents_may_be_many_in_one_file() -> None:
    with pytest.raises(CorpusError, match=r"It has only 2 documents.*set 'document: paragraph' or 'document: line'"):
        pack(many(2), TOKENIZER, 4, {"train": 400}, SHARE, 0, "en")
    with pytest.raises(CorpusError) as caught:
        pack(many(50), TOKENIZER, 4, {"train": 4000}, SHARE, 0, "en")
    assert "document: line" not in str(caught.value)


# -- all texts -------------------------------------------------------------------------------------------------------


def test_all_texts_are_packed_and_the_rest_is_dropped() -> None:
    assert pack_all(["1 2 3", "4", "5 6 7 8"], TOKENIZER, 4, "en").tolist() == [[11, 12, 13, EOS], [14, EOS, 15, 16]]
    assert pack_all(["1 2 3", "4"], tokenizer_with(eos=None), 2, "en").tolist() == [[11, 12], [13, 14]]


@pytest.mark.parametrize(("texts", "has"), [([], 0), (["1 2"], 3)])
def test_texts_of_less_than_one_window(texts: list[str], has: int) -> None:
    with pytest.raises(
        CorpusError, match=f"language 'tr': its training text has {has} tokens, less than one window of 4"
    ):
        pack_all(texts, TOKENIZER, 4, "tr")
