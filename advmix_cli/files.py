"""The one writer: a file is either the old one or the whole new one. And a reader that has a bound."""

import os
import secrets
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` to a temporary file in the same directory, flush it to the disk, and rename it to `path`. OSError
    names `path`, where the old file or the whole new one is."""
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_directory(path.parent)
    except OSError as error:
        raise _named(error, path) from error


def append_line(path: Path, line: str) -> None:
    """Add `line` and its end to a file that is read line by line, and flush it to the disk. A process that is killed
    here can leave a part of it, without an end: such a line is none. OSError names `path`, and leaves no part of it."""
    append_bytes(path, f"{line}\n".encode())


def append_bytes(path: Path, content: bytes) -> None:
    """Add `content` to a file, and flush it to the disk. OSError names `path`, and leaves no part of it."""
    try:
        is_new = not path.exists()
        # Without a buffer, which would be written after all when the file is closed.
        with path.open("ab", buffering=0) as stream:
            before, left = stream.tell(), content
            try:
                while left:
                    left = left[stream.write(left) :]
                os.fsync(stream.fileno())
            except OSError:
                os.truncate(path, before)
                raise
        if is_new:
            _flush_directory(path.parent)
    except OSError as error:
        raise _named(error, path) from error


def appended(path: Path) -> BinaryIO:
    """A log, for a process that writes into it itself; made if it is not there."""
    return path.open("ab", buffering=0)


def read_text(path: Path, at_most: int) -> str:
    """As `read_bytes`, in UTF-8; UnicodeDecodeError, a ValueError, if it is not."""
    return read_bytes(path, at_most).decode()


def read_bytes(path: Path, at_most: int) -> bytes:
    """The content of a file of `at_most` so many bytes. ValueError for a longer one, of which no more is read, and for
    a pipe or a device, which may have no end."""
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    with path.open("rb") as stream:
        content = stream.read(at_most + 1)
    if len(content) > at_most:
        raise ValueError(f"longer than {at_most:,} bytes")
    return content


def _flush_directory(path: Path) -> None:
    """A new name is on the disk once its directory is."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def is_utf8(name: Path | str) -> bool:
    """Not what a file system may have instead of it, which libraries refuse in their own words."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(error: OSError, path: Path) -> OSError:
    """Python's own error of a full disk has no name."""
    return OSError(error.errno, error.strerror or str(error), str(path))
