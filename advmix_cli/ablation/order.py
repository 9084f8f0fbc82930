"""In what order the rows of a table stand: `rows.json` beside its cells, for who finds only these.

All rows of the table as it was last run. Nothing but the order of a list depends on it.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter

from advmix_cli.files import read_text, write_atomically

NAME = "rows.json"
LONGEST = 2**24
"""Bytes."""


def keep_order(rows: Sequence[str], directory: Path) -> None:
    """Write down the names of the rows whose cells lie in `directory`, if that can be written."""
    if kept_order(directory) != [*rows]:
        with suppress(OSError):  # a finished table can be shown from a disk that is read-only
            write_atomically(directory / NAME, json.dumps([*rows], indent=2, ensure_ascii=False) + "\n")


def kept_order(directory: Path) -> list[str]:
    """What was written down; nothing where that cannot be read."""
    try:
        return TypeAdapter(list[str]).validate_json(read_text(directory / NAME, LONGEST), strict=True)
    except (OSError, ValueError):
        return []
