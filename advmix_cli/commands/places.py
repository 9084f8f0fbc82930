"""Directories that a command is to write into."""

import os
from pathlib import Path

from advmix_cli.errors import UsageError


def raise_unless_writable(directory: Path, what: str) -> None:
    """Make the directory that is for `what`; UsageError if it cannot be written, which would otherwise be found
    after the work."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{what} {directory}: not a directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{what} {directory}: cannot be written: {error.strerror}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{what} {directory}: cannot be written")
