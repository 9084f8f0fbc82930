"""Where each key of a TOML text stands. The values come from tomllib; only the positions come from tree-sitter."""

import tomllib
from typing import Any, NamedTuple, cast

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

Path = tuple[str | int, ...]


class Position(NamedTuple):
    """A place a user can be sent to: `place` is a file's name, or the flag that a value came from."""

    place: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.place if self.line is None else f"{self.place}:{self.line}:{self.column}"


def locate(text: str, place: str) -> dict[Path, Position]:
    """The position of every key and array item of `text` (valid TOML), by its path; () is the file's start.

    An array of tables has its items at (..., 0), (..., 1); a table's position is that of its first mention.
    """
    source = text.encode()
    lines = source.split(b"\n")
    found: dict[Path, Position] = {(): Position(place, 1, 1)}
    counts: dict[Path, int] = {}

    def mark(path: Path, node: Node) -> None:
        row, byte = node.start_point
        found.setdefault(path, Position(place, row + 1, len(lines[row][:byte].decode()) + 1))

    def values(path: Path, node: Node) -> None:
        for item in node.named_children:
            if item.type == "pair":
                pair(path, item)
        if node.type == "array":
            for index, item in enumerate(child for child in node.named_children if child.type != "comment"):
                mark((*path, index), item)
                values((*path, index), item)

    def pair(prefix: Path, node: Node) -> None:
        key, value = (child for child in node.named_children if child.type != "comment")
        path = prefix
        for part in _key_parts(key):
            path = (*path, part)
            mark(path, key)
        values(path, value)

    tree = Parser(Language(tree_sitter_toml.language())).parse(source)
    for node in tree.root_node.named_children:
        if node.type == "pair":
            pair((), node)
        elif node.type in ("table", "table_array_element"):
            key = next(child for child in node.named_children if child.type != "comment")
            path: Path = ()
            for part in _key_parts(key):
                path = (*path, part)
                mark(path, key)
                if path in counts:
                    path = (*path, counts[path] - 1)
            if node.type == "table_array_element":
                array = path[:-1] if path and isinstance(path[-1], int) else path
                counts[array] = counts.get(array, 0) + 1
                path = (*array, counts[array] - 1)
                mark(path, key)
            values(path, node)
    return found


def _key_parts(key: Node) -> list[str]:
    """`a."b c".d` -> ["a", "b c", "d"]; tomllib reads the quotes and escapes."""
    parsed: Any = tomllib.loads(f"{(key.text or b'').decode()} = 0")
    parts: list[str] = []
    while isinstance(parsed, dict):
        ((part, parsed),) = cast("dict[str, Any]", parsed).items()
        parts.append(part)
    return parts
