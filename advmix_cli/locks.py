"""One process at a time in a run directory."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from advmix_cli.errors import InUseError, RunDirectoryError, printable

LOCK = ".lock"


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """`directory`, made if it is not there, is this process's. The lock is the kernel's: it ends with its holder,
    however that ends, and the file that stays behind means nothing. InUseError says who holds it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # No link is followed: what it pointed to would be emptied.
        number = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        opened = os.fdopen(number, "r+", encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"{directory} cannot be written: {error.strerror or error}") from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(f"{directory} is in use: {_holder(file)}") from None
        file.truncate(0)
        since = datetime.now(UTC).isoformat(" ", "seconds")
        file.write(f"process {os.getpid()} on {platform.node()}, since {since}\n")
        file.flush()
        yield


def in_use(directory: Path) -> bool:
    """Whether a process works in `directory` now; makes nothing."""
    try:
        with (directory / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _holder(file: TextIO) -> str:
    """As it names itself, which it does a moment after it has the lock."""
    for _ in range(10):
        time.sleep(0.05)
        file.seek(0)
        if name := file.read(200).strip():
            return printable(name)
    return "another process"
