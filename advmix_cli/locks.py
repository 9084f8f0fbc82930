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
        if not _taken(file):
            raise InUseError(f"{directory} is in use: {_holder(file)}")
        file.truncate(0)
        since = datetime.now(UTC).isoformat(" ", "seconds")
        file.write(f"process {os.getpid()} on {platform.node()}, since {since}\n")
        file.flush()
        yield


def is_held(directory: Path) -> bool:
    """Whether somebody works in `directory`. Nothing is written, and nobody is refused for it: the lock can only be
    seen by sharing it, and who wants it in that moment tries again."""
    try:
        number = os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(number)
    return False


def _taken(file: TextIO) -> bool:
    """Whether the lock is ours now. Who only looks has it for microseconds, who works for longer than this waits."""
    for wait in (0.01, 0.01, 0.02, 0.02, 0.03, 0.03, 0.04, 0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(wait)
        except OSError:  # a file system without locks, where there are none
            return True
        else:
            return True
    return False


def _holder(file: TextIO) -> str:
    """As it names itself, which it does a moment after it has the lock."""
    for _ in range(10):
        time.sleep(0.05)
        file.seek(0)
        if name := file.read(200).strip():
            return printable(name)
    return "another process"
