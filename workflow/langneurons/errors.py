"""Mistakes that a user can mend: one message, no traceback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

STORAGE_REMEDIES = {
    errno.ENOSPC: "Free space on that disk",
    errno.EDQUOT: "Free space within your quota, or ask for a larger one",
    errno.EFBIG: "Raise the limit of the size of files (ulimit -f), or use a file system without one",
    errno.EROFS: "Make the file system writable",
    errno.EIO: "Have the disk checked",
    errno.EACCES: "Correct the path or its permissions",
    errno.EPERM: "Correct the path or its permissions",
    errno.EISDIR: "Correct the path: there is a folder of that name",
    errno.ENOTDIR: "Correct the path: a part of it is a file",
    errno.ENAMETOOLONG: "Choose shorter names",
}
"""What to do about errors of the system, by number."""


class UserError(ValueError):
    """Bad input. The message names the key, file or language, what was expected and what to do."""


class ConfigError(UserError):
    """A mistake in the configuration, in one sentence that names the key and the remedy."""


class CorpusError(UserError):
    """Text that cannot be used, with the file and the remedy."""


class ResultError(UserError):
    """A table or figure of a run that cannot be used, with the file and what makes it anew."""


def run(main: Callable[[], None]) -> None:
    """Run a script's main; a user's mistake, a bad path or a full disk ends it with its message and exit code 1."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        sys.exit(f"error: {error.filename2 or error.filename}: {error.strerror}. Correct the path or its permissions.")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {place}{error.strerror}. {STORAGE_REMEDIES[error.errno]}, and run again.")
