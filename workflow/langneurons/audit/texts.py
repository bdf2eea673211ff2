"""Whether what was recorded is text that the tokenizer knows, each text once."""

from __future__ import annotations

from langneurons.audit.evidence import NOTE, PASSED, WARNING, Evidence, Found
from langneurons.corpus.shares import ODD, shares

ODD_SHARES = {
    "repeated_tokens": (
        0.05,
        "{0:.0%} of the recorded tokens of {1} repeat an earlier text. Neurons are measured on fewer texts than it "
        "seems. Only texts that are the same were looked for: others may be nearly so.",
    ),
    "unknown_tokens": (
        0.02,
        "{0:.0%} of the recorded tokens of {1} stand for text that the tokenizer does not know. The model cannot read "
        "it.",
    ),
    "special_tokens": (
        0.2,
        "{0:.0%} of the recorded tokens of {1} are special tokens, such as ends of texts. The documents are very "
        "short, or the tokenizer makes nothing of them.",
    ),
    "empty_tokens": (
        0.5,
        "{0:.0%} of the recorded tokens of {1} have no text of their own. Is this the tokenizer of the model?",
    ),
}
"""From which share of the recorded tokens on a language is worth looking at, and what is said then. Separators of
documents are special tokens: a fifth of the tokens means documents of four."""


def check_text(evidence: Evidence) -> Found:
    """Look at the shares of tokens that stand for no text of their own."""
    known = {language: shares(about) for language, about in evidence.texts.items() if "tokens" in about}
    if not any(share is not None for row in known.values() for share in row.values()):
        yield NOTE, "", "How much of the recorded text is unknown, special or repeated is not known."
        return
    found = False
    for language, row in known.items():
        for name, (limit, sentence) in ODD_SHARES.items():
            share = row[name] or 0.0
            if share > limit:
                found = True
                yield WARNING, language, sentence.format(share, language)
    if not found:
        most = {name: max(row[name] or 0.0 for row in known.values()) for name in ODD}
        yield (
            PASSED,
            "",
            f"Of the recorded tokens of any language at most {most['repeated_tokens']:.1%} repeat an earlier text, "
            f"{most['unknown_tokens']:.1%} are unknown to the tokenizer, {most['special_tokens']:.1%} are special "
            f"tokens, and {most['empty_tokens']:.1%} have no text.",
        )
