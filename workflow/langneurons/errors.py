"""Mistakes that a user can mend: one message, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Bad input. The message names the key, file or language, what was expected and what to do."""


class ConfigError(UserError):
    """A mistake in the configuration, in one sentence that names the key and the remedy."""


class CorpusError(UserError):
    """Text that cannot be used, with the file and the remedy."""


def run(main: Callable[[], None]) -> None:
    """Run a script's main; a user's mistake or an unusable path ends it with its message and exit code 1."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        sys.exit(f"error: {error.filename2 or error.filename}: {error.strerror}. Correct the path or its permissions.")
