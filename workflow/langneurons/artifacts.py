"""The only reader and writer of files passed between jobs.

Every artefact carries its kind, the version of its format and a sha256 of its payload, which is checked on reading:
a truncated or bit-flipped file is named, never used. Writes are atomic (`writing`). No pickle is ever written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import safetensors
import safetensors.numpy

from langneurons.corpus.windows import TokenWindows
from langneurons.cross_checks import NO_MODELS
from langneurons.errors import UserError
from langneurons.formats import VERSIONS
from langneurons.interventions import Intervention
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.sentences import SentenceMeans
from langneurons.writing import atomic, write_text

__all__ = ["VERSIONS", "atomic", "write_text"]  # of other modules, and used through this one

Json = dict[str, Any]

ARTIFACT_SUFFIXES = (".safetensors", ".parquet", ".jsonl", ".json")
FOREIGN_FOLDERS = ("model", "published")
"""Folders of a model with files in the formats of other programs."""


class ArtifactError(UserError):
    """A file between jobs that cannot be used, with its path and the remedy."""

    reason: str = ""
    """Why, without the rest."""


class FormatError(ArtifactError):
    """An intact file of another kind or version than expected."""


# -- arrays, tables, records, documents -------------------------------------------------------------------------------


def write_arrays(path: str | Path, kind: str, arrays: dict[str, np.ndarray], metadata: Json) -> None:
    """Write named arrays and JSON metadata as safetensors."""
    stamp = {"metadata": metadata} | _stamp(kind, _digest_arrays(arrays, metadata))
    header = {"langneurons": json.dumps(stamp, sort_keys=True)}  # one entry: safetensors writes several in any order
    with atomic(path) as temporary:
        safetensors.numpy.save_file(
            {name: np.asarray(value, order="C") for name, value in arrays.items()}, temporary, header
        )


def read_arrays(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], Json]:
    """Read what `write_arrays` wrote.

    Raises:
        ArtifactError: missing, truncated or altered file, or another kind or version.
    """
    with _readable(path):
        with safetensors.safe_open(path, framework="numpy") as handle:
            header = json.loads((handle.metadata() or {}).get("langneurons", "{}"))
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
        metadata = header.get("metadata", {})
        _check_stamp(path, kind, header, _digest_arrays(arrays, metadata))
    return arrays, metadata


def write_table(path: str | Path, kind: str, table: pd.DataFrame, metadata: Json | None = None) -> None:
    """Write a table and JSON metadata as Parquet."""
    metadata = metadata or {}
    arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
    digest = _digest_table(arrow.to_pandas(ignore_metadata=True), metadata)  # the table as it is read back
    stamp = _stamp(kind, digest) | {"metadata": json.dumps(metadata, sort_keys=True)}
    with atomic(path) as temporary:
        pyarrow.parquet.write_table(
            arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), **stamp}), temporary
        )


def read_table(path: str | Path, kind: str) -> tuple[pd.DataFrame, Json]:
    """Read what `write_table` wrote.

    Raises:
        ArtifactError: missing, truncated or altered file, or another kind or version.
    """
    with _readable(path):
        arrow = pyarrow.parquet.read_table(path)
        header = {key.decode(): value.decode() for key, value in (arrow.schema.metadata or {}).items()}
        table = arrow.to_pandas(ignore_metadata=True)  # pandas' own metadata are outside the checksum
        metadata = json.loads(header.get("metadata", "{}"))
        _check_stamp(path, kind, header, _digest_table(table, metadata))
    return table, metadata


def write_document(path: str | Path, kind: str, document: Json) -> None:
    """Write a JSON object, its stamp beside its keys."""
    stamped = {**document, **_stamp(kind, _digest_json(document))}
    write_text(path, json.dumps(stamped, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_document(path: str | Path, kind: str) -> Json:
    """Read what `write_document` wrote, without the stamp."""
    with _readable(path):
        header = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(header, dict):
            raise _damaged(path, "it is not a JSON object")
        document = {key: value for key, value in header.items() if key not in ("format", "sha256")}
        _check_stamp(path, kind, header, _digest_json(document))
    return document


def write_records(path: str | Path, kind: str, records: list[Json]) -> None:
    """Write JSON lines, or an array if the name ends in `.json`.

    Each record repeats the stamp of the whole file, so that a cut file is noticed.
    """
    stamp = _stamp(kind, _digest_json(records))
    stamped = [{**record, **stamp} for record in records]
    if Path(path).suffix == ".json":
        write_text(path, json.dumps(stamped, indent=2, ensure_ascii=False) + "\n")
    else:
        write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in stamped))


def read_records(path: str | Path, kind: str) -> list[Json]:
    """Read what `write_records` wrote, without the stamps."""
    with _readable(path):
        text = Path(path).read_text(encoding="utf-8")
        array = Path(path).suffix == ".json"
        records = json.loads(text) if array else [json.loads(line) for line in text.split("\n") if line]
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise _damaged(path, "a record is not a JSON object")
        stamps = {(record.pop("format", None), record.pop("sha256", None)) for record in records}
        if len(stamps) != 1:
            raise _damaged(path, "its records do not belong together")
        form, digest = stamps.pop()
        _check_stamp(path, kind, {"format": form, "sha256": digest}, _digest_json(records))
    return records


# -- typed artefacts --------------------------------------------------------------------------------------------------


def write_tokens(path: str | Path, tokens: TokenWindows) -> None:
    """Write packed windows, uint32 `[window, position]`."""
    write_arrays(path, "tokens", {"windows": tokens.windows.astype(np.uint32)}, tokens.metadata)


def read_tokens(path: str | Path) -> TokenWindows:
    """Read packed windows."""
    arrays, metadata = read_arrays(path, "tokens")
    return TokenWindows(arrays["windows"], metadata)


def write_activations(path: str | Path, counts: ActivationCounts, metadata: Json) -> None:
    """Write recorded counts and sums, `[layer, neuron]`; what a published recording lacks is left out."""
    arrays = {
        "over_zero": counts.over_zero,
        "activation_sum": counts.activation_sum,
        "product_sum": counts.product_sum,
        "half_over_zero": counts.half_over_zero,
        "tokens": np.array(counts.tokens, dtype=np.int64),
        "half_tokens": None if counts.half_over_zero is None else np.array(counts.half_tokens, dtype=np.int64),
        "quarter_over_zero": counts.quarter_over_zero,
        "quarter_tokens": None if counts.quarter_over_zero is None else np.array(counts.quarter_tokens, dtype=np.int64),
        "hidden_sum": counts.hidden_sum,
    }
    write_arrays(path, "activations", {name: value for name, value in arrays.items() if value is not None}, metadata)


def read_activations(path: str | Path) -> tuple[ActivationCounts, Json]:
    """Read recorded counts and sums, and check that they are possible.

    Raises:
        ArtifactError: damaged file, or impossible counts.
    """
    counts, metadata = read_activations_unchecked(path)
    try:
        counts.check()
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    return counts, metadata


def read_activations_unchecked(path: str | Path) -> tuple[ActivationCounts, Json]:
    """Read recorded counts and sums, possible or not: the audit says what is wrong with them."""
    arrays, metadata = read_arrays(path, "activations")
    counts = ActivationCounts(
        over_zero=arrays["over_zero"],
        activation_sum=arrays.get("activation_sum"),
        product_sum=arrays.get("product_sum"),
        tokens=int(arrays["tokens"]),
        half_over_zero=arrays.get("half_over_zero"),
        half_tokens=int(arrays.get("half_tokens", 0)),
        quarter_over_zero=arrays.get("quarter_over_zero"),
        quarter_tokens=int(arrays.get("quarter_tokens", 0)),
        hidden_sum=arrays.get("hidden_sum"),
    )
    return counts, metadata


def write_sentences(path: str | Path, sentences: SentenceMeans, metadata: Json) -> None:
    """Write mean activations of sentences, float16 or float32 `[sentence, layer, neuron]`."""
    write_arrays(path, "sentences", {"means": sentences.means, "tokens": sentences.tokens}, metadata)


def read_sentences(path: str | Path) -> tuple[SentenceMeans, Json]:
    """Read mean activations of sentences, and check that they are possible.

    Raises:
        ArtifactError: damaged file, or impossible means.
    """
    arrays, metadata = read_arrays(path, "sentences")
    sentences = SentenceMeans(arrays["means"], arrays["tokens"])
    try:
        sentences.check()
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    return sentences, metadata


def write_intervention(path: str | Path, intervention: Intervention, metadata: Json) -> None:
    """Write an affine edit, one row per edited neuron."""
    write_table(path, "intervention", intervention.table, {**metadata, "site": intervention.site})


def read_intervention(path: str | Path) -> Intervention:
    """Read an affine edit."""
    table, metadata = read_table(path, "intervention")
    return Intervention(table, metadata["site"])


def write_generations(path: str | Path, completions: list[Any]) -> None:
    """Write completions, one JSON object per line: id, split, input, output, output_tokens, finish_reason."""
    write_records(path, "generations", [asdict(completion) for completion in completions])


def read_generations(path: str | Path) -> list[Json]:
    """Read completions."""
    return read_records(path, "generations")


def write_manifest(path: str | Path, files: Iterable[str | Path]) -> None:
    """Write the names of files below its folder, with the sha256 of each: it changes exactly when one of them does."""
    found = {
        Path(file).relative_to(Path(path).parent).as_posix(): hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for file in files
    }
    write_document(path, "manifest", {"files": found})


def target_of(path: Path) -> Path:
    """What to ask Snakemake for to make a file anew: the manifest that names it, or the file itself.

    Of a large run Snakemake knows manifests alone (`measured`).
    """
    for manifest in sorted(path.parent.parent.glob("*.json")):
        try:
            files = read_document(manifest, "manifest")["files"]
        except ArtifactError:  # of another kind, or damaged
            continue
        if path.relative_to(manifest.parent).as_posix() in files:
            return manifest
    return path


# -- all files of a results folder -------------------------------------------------------------------------------------


def find_artifacts(results: str | Path) -> list[Path]:
    """The files of a results folder that this module wrote, by where they are and by their suffix.

    That is all below `<model>/`, but for a demo model's weights, which are a folder of `transformers`, for downloads of
    files that others published, and for hidden files.
    """
    found = []
    for suffix in ARTIFACT_SUFFIXES:
        for path in Path(results).glob(f"*/**/*{suffix}"):
            folder, *rest = path.relative_to(results).parts
            hidden = any(part.startswith(".") for part in (folder, *rest))
            if folder not in NO_MODELS and not (len(rest) > 1 and rest[0] in FOREIGN_FOLDERS) and not hidden:
                found.append(path)
    return sorted(found)


def verify_all(results: str | Path) -> tuple[int, dict[Path, ArtifactError]]:
    """Check all files of a results folder: how many there are, and what is wrong, by file."""
    found = find_artifacts(results)
    faults = {}
    for path in found:
        try:
            verify(path)
        except ArtifactError as error:
            faults[path] = error
    return len(found), faults


def verify(path: str | Path) -> None:
    """Read a file by the kind that it says it has, and check its version and its checksum.

    Raises:
        ArtifactError: damaged file, or no file of this workflow.
        FormatError: a file of another version.
    """
    kind, read = _kind_and_reader(path)
    if kind not in VERSIONS:
        reason = f"has the format {kind or 'of another program'}, which this version of langneurons does not know"
        refusal = FormatError(f"{path}: {reason}. Delete it.")
        refusal.reason = reason
        raise refusal
    read(path, kind)


def _kind_and_reader(path: str | Path) -> tuple[str, Callable[[str | Path, str], Any]]:
    """The kind in a file's stamp, and what reads such files."""
    reader: Callable[[str | Path, str], Any]
    with _readable(path):
        if Path(path).suffix == ".safetensors":
            with safetensors.safe_open(path, framework="numpy") as handle:
                header = json.loads((handle.metadata() or {}).get("langneurons", "{}"))
            reader = read_arrays
        elif Path(path).suffix == ".parquet":
            stamp = (pyarrow.parquet.read_schema(path).metadata or {}).get(b"format", b"")
            header, reader = {"format": stamp.decode()}, read_table
        else:
            text = Path(path).read_text(encoding="utf-8")
            content = json.loads(text.partition("\n")[0] if Path(path).suffix == ".jsonl" else text)
            reader = read_document if isinstance(content, dict) and Path(path).suffix == ".json" else read_records
            header = content[0] if isinstance(content, list) and content else content
        form = header.get("format") if isinstance(header, dict) else None
        return str(form or "").rpartition("-")[0], reader


# -- stamps -----------------------------------------------------------------------------------------------------------


def _stamp(kind: str, digest: str) -> dict[str, str]:
    return {"format": f"{kind}-{VERSIONS[kind]}", "sha256": digest}


def _check_stamp(path: str | Path, kind: str, header: Json, digest: str) -> None:
    expected = f"{kind}-{VERSIONS[kind]}"
    found = header.get("format")
    if found != expected:
        reason = f"has the format {found or 'of another program'}, but this version of langneurons reads {expected}"
        refusal = FormatError(f"{path}: {reason}. Delete the file and run again; Snakemake makes it anew.")
        refusal.reason = reason
        raise refusal
    if header.get("sha256") != digest:
        raise _damaged(path, "its content does not match its checksum")


def _damaged(path: str | Path, reason: str) -> ArtifactError:
    refusal = ArtifactError(
        f"{path}: the file is damaged, or no file of this workflow ({reason}). If the workflow wrote it, delete it and "
        "run again; Snakemake makes it anew."
    )
    refusal.reason = f"is damaged, or no file of this workflow ({reason})"
    return refusal


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    """Turn what the format libraries raise on damaged files into one message."""
    try:
        yield
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: the file does not exist. Ask snakemake for it: snakemake --cores all {path}"
        ) from None
    except (
        safetensors.SafetensorError,
        pyarrow.ArrowException,
        json.JSONDecodeError,
        UnicodeDecodeError,
        OSError,
    ) as error:
        raise _damaged(path, str(error).splitlines()[0][:200]) from None


def _digest_arrays(arrays: dict[str, np.ndarray], metadata: Json) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _digest_table(table: pd.DataFrame, metadata: Json) -> str:
    header = [metadata, [(str(column), str(dtype)) for column, dtype in table.dtypes.items()], len(table)]
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for column in table.columns:
        digest.update(pd.util.hash_pandas_object(table[column], index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _digest_json(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
