"""How a changed bit of a text is noticed: by SHA-256."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "sha256"


def digest(text: str) -> str:
    """Of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """`document`, which JSON can hold, with its own digest."""
    return {**document, KEY: _of(document)}


def unsealed(document: dict[str, Any]) -> dict[str, Any]:
    """The inverse, after any way through JSON. ValueError if it is not what was sealed."""
    content = {name: value for name, value in document.items() if name != KEY}
    json.dumps(content, ensure_ascii=False, allow_nan=False).encode()  # no number or text that cannot be written again
    if document.get(KEY) != _of(content):
        raise ValueError("it is not what was written: its checksum differs")
    return content


def _of(document: Mapping[str, Any]) -> str:
    return digest(json.dumps(document, sort_keys=True))
