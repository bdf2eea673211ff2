"""Models of the hub: one job downloads them into the hub's cache, all others read them there, without network."""

from __future__ import annotations

import errno
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils.tqdm import disable_progress_bars
from tqdm.auto import tqdm

from langneurons.errors import UserError
from langneurons.models.folders import (
    TOKENIZER_FILES,
    ModelError,
    check_folder,
    check_no_adapter,
    foreign_code,
    read_object,
)
from langneurons.models.layouts import supported_architecture

Json = dict[str, Any]

TEXT_FILES = re.compile(
    r"(generation_)?config\.json|\w*token\w*\.json|\w*token\w*\.model|spiece\.model|vocab\.(json|txt)|merges\.txt"
    r"|chat_template\.jinja"
)
"""Configuration and tokenizer. Names with a slash, in folders such as original/ and onnx/, do not match."""
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Where transformers looks for weights: the first that there is. An index names the files that hold them."""
BY_HAND = "download it elsewhere and use it as a folder: {source: folder, path: …}"


def download(model: str, revision: str) -> Json:
    """Download a model into the hub's cache: what is there already is not fetched again.

    Its configuration comes first, so that nothing large is fetched of a model that cannot be used.

    Args:
        model: a hub id.
        revision: a commit, tag or branch.

    Returns:
        id, revision, the commit that it is, and the files with their sizes in bytes.

    Raises:
        ModelError: no such model or revision, no access, no network, no space, or no model of transformers.
        UnknownArchitectureError: a family that is not supported.
    """
    with _explained(model, revision):
        commit = huggingface_hub.resolve_revision(model, revision=revision).resolved
        folder = _fetched_quietly(model, commit, ["config.json"])
        sizes = _listed(model, commit)
        _check_listed(model, sizes)
        supported_architecture(read_object(model, folder / "config.json").get("architectures"))
        _fetched_quietly(model, commit, [name for name in _without_shards(list(sizes)) if name.endswith(".json")])
        files = _chosen(model, list(sizes), folder)
        _check_space(model, {name: sizes[name] for name in files if not (folder / name).exists()})
        about = "" if revision == commit else f" ({revision} today; pin it as 'revision' in the config)"
        total = sum(sizes[name] for name in files) / 1e9
        print(f"{model}, commit {commit}{about}: {len(files)} files, {total:,.2f} GB", file=sys.stderr, flush=True)
        huggingface_hub.snapshot_download(model, revision=commit, allow_patterns=files, tqdm_class=_Bytes)
    listed = [{"name": name, "bytes": sizes[name]} for name in files]
    return {"id": model, "revision": revision, "commit": commit, "files": listed}


def resolve(model: str, revision: str | None = None) -> str:
    """The folder that a model is loaded from: its own, or the one in the hub's cache. Never asks the network, and never
    takes a folder for a hub id that happens to be its name.

    Args:
        model: a folder, or a hub id.
        revision: commit, tag or branch of a hub id; None for a folder.

    Raises:
        ModelError: no such folder, an incomplete one, or a hub id that was not downloaded.
    """
    if revision is None:
        check_folder(model)
        return model
    options: Json = {"revision": revision, "local_files_only": True}
    try:
        names = list(_listed(model, revision))
        folder = huggingface_hub.snapshot_download(model, allow_patterns=_without_shards(names), **options)
        huggingface_hub.snapshot_download(model, allow_patterns=_chosen(model, names, Path(folder)), **options)
    except (errors.LocalEntryNotFoundError, errors.CachedRepoTreeNotFoundError, errors.HFValidationError) as error:
        state = "not complete in" if isinstance(error, errors.IncompleteSnapshotError) else "not in"
        raise ModelError(
            f"revision {revision} of the model '{model}' is {state} the hub's cache {constants.HF_HUB_CACHE}. "
            f"Download it on a machine with network that shares this cache (environment "
            f"variable HF_HOME): snakemake --force results/<model>/download.json. Alternatively {BY_HAND}."
        ) from None
    return folder


def unloadable(model: str, revision: str | None, error: Exception) -> ModelError:
    """What to say of a model, or its tokenizer, whose files a loader could not use; `revision` as for `resolve`."""
    if "trust_remote_code" in str(error):  # what transformers would have one set; it names no file
        return foreign_code(model, "config.json")
    reason = " ".join(str(error).split())[:300]
    remedy = (
        "Check the files in the folder."
        if revision is None
        else f"Delete its files in the hub's cache {constants.HF_HUB_CACHE} and download them again: "
        "snakemake --force results/<model>/download.json"
    )
    return ModelError(f"the model '{model}' cannot be loaded: {reason} {remedy}")


def _fetched_quietly(model: str, commit: str, names: list[str]) -> Path:
    """Fetch small files; the folder that they are in."""
    with disable_progress_bars():
        return Path(huggingface_hub.snapshot_download(model, revision=commit, allow_patterns=names))


# -- files ------------------------------------------------------------------------------------------------------------


def _listed(model: str, revision: str) -> dict[str, int]:
    """All files of a revision with their sizes, by the listing in the cache."""
    return {file.path: file.size for file in huggingface_hub.get_cached_repo_tree(model, revision=revision)}


def _without_shards(names: Sequence[str]) -> list[str]:
    """The files of a model, but for those that an index names."""
    weights = [name for name in WEIGHT_FILES if name in names]
    return [name for name in names if TEXT_FILES.fullmatch(name)] + weights[:1]


def _chosen(model: str, names: Sequence[str], folder: Path) -> list[str]:
    """All files that a model is loaded from, sorted; an index of weights is read in the folder.

    Raises:
        ModelError: the index names a file that there is not.
    """
    chosen = _without_shards(names)
    for index in [name for name in chosen if name.endswith(".index.json")]:
        shards = set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values())
        if missing := sorted(shards - set(names)):
            raise ModelError(f"the model '{model}' lacks {missing[0]}, which its {index} names. Try another revision.")
        chosen += shards
    return sorted(chosen)


def _check_listed(model: str, names: Json) -> None:
    """Check that a repository holds what `transformers` loads, and no adapter."""
    check_no_adapter(model, names)
    wanted = {
        "config.json": ("config.json",),
        f"weights ({' or '.join(WEIGHT_FILES[::2])})": WEIGHT_FILES,
        f"tokenizer ({', '.join(TOKENIZER_FILES)})": TOKENIZER_FILES,
    }
    for what, files in wanted.items():
        if not any(name in names for name in files):
            raise ModelError(
                f"the model '{model}' has no {what} on the hub: it is no model of transformers, or of another format. "
                "Correct 'id' or 'revision' in the config's models section."
            )


def _check_space(model: str, missing: dict[str, int]) -> None:
    """Check that what is still to be fetched fits onto the disk."""
    needed, free = sum(missing.values()), shutil.disk_usage(constants.HF_HUB_CACHE).free
    if needed > free:
        raise ModelError(
            f"the model '{model}' needs {needed / 1e9:,.1f} GB more, but in the hub's cache {constants.HF_HUB_CACHE} "
            f"{free / 1e9:,.1f} GB are free. Make room there, or name a folder on a larger disk in the environment "
            "variable HF_HOME."
        )


# -- progress and messages --------------------------------------------------------------------------------------------


class _Bytes(tqdm):
    """One bar of bytes over all files that reads well on a terminal and in a log. The library makes three."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        shown = str(options.get("desc", "")).startswith("Reconstructing")  # what has come to the disk
        terminal = sys.stderr.isatty()
        looks = {"desc": "download", "bar_format": None, "file": sys.stderr, "mininterval": 0.2 if terminal else 5}
        super().__init__(*arguments, **(options | looks | {"disable": not shown}))

    def set_description(self, *arguments: Any, **options: Any) -> None:
        """Keep ours."""

    def set_postfix_str(self, *arguments: Any, **options: Any) -> None:
        """The bar shows the rate already."""


@contextmanager
def _explained(model: str, revision: str) -> Iterator[None]:
    """Turn what the library raises into one message that says what to do."""
    page = f"{constants.ENDPOINT}/{model}"
    try:
        yield
    except errors.HFValidationError:
        raise ModelError(
            f"'{model}' is no hub id, which has the form name/model. Correct 'id' in the config's models section."
        ) from None
    except UserError:
        raise
    except errors.GatedRepoError:
        raise ModelError(
            f"the model '{model}' is gated. Ask for access on its page, {page}; once it is granted, log in on this "
            "machine with: hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"the hub has no model '{model}', or a private one. Correct 'id' in the config's models section; if it is "
            "private, log in with: hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(
            f"the model '{model}' has no revision '{revision}'. Correct 'revision' in the config's models section; "
            f"{page}/commits/main lists its commits."
        ) from None
    except (errors.LocalEntryNotFoundError, errors.RevisionResolutionError, OSError, httpx.HTTPError) as error:
        raise _interrupted(model, error) from None
    except (ValueError, RuntimeError, KeyError, errors.CachedRepoTreeNotFoundError, errors.XetDownloadError) as error:
        raise ModelError(
            f"the model '{model}' cannot be downloaded: {_reason(error)} Run again; if that does not help, {BY_HAND}."
        ) from None


def _interrupted(model: str, error: BaseException) -> ModelError:
    """What to say of a download that network or disk ended."""
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, errors.HfHubHTTPError):
        cause = cause.__cause__
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = f"the disk of the hub's cache {constants.HF_HUB_CACHE} is full"
        remedy = "Make room there, or name a folder on a larger disk in the environment variable HF_HOME"
    elif isinstance(cause, PermissionError):
        reason = f"the hub's cache {constants.HF_HUB_CACHE} cannot be written"
        remedy = "Correct its permissions, or name another folder in the environment variable HF_HOME"
    elif isinstance(cause, errors.OfflineModeIsEnabled):
        reason = "the environment variable HF_HUB_OFFLINE forbids it"
        remedy = f"Unset it on a machine with network; alternatively {BY_HAND}"
    elif isinstance(cause, errors.HfHubHTTPError):
        status = cause.response.status_code
        reason = f"the hub answers {status} {cause.server_message or cause.response.reason_phrase}"
        refused = status in (401, 403)
        remedy = "Log in anew, with a token that may read it: hf auth login" if refused else "Run again later"
    else:
        reason = f"no connection to {constants.ENDPOINT} ({_reason(cause)})"
        remedy = f"Check the network; alternatively {BY_HAND}"
    return ModelError(
        f"the model '{model}' cannot be downloaded: {reason}. {remedy}. Files that are complete are kept, and running "
        "again continues with the others."
    )


def _reason(error: BaseException) -> str:
    """The first words of a library's message."""
    return " ".join(str(error).split())[:200] or type(error).__name__
