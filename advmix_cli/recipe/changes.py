"""Two recipes, field by field."""

import json
from typing import cast

from advmix_cli.recipe.schema import Recipe


def changes(one: Recipe, other: Recipe) -> dict[str, tuple[object, object]]:
    """The fields that are not the same, by their dotted names, with both of their values; None for what one has not. A
    title changes nothing."""
    ours, theirs = _flat(one.resolved()), _flat(other.resolved())
    return {
        key: (ours.get(key), theirs.get(key))
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key) and key != "title"
    }


def shown(value: object) -> str:
    """For a person."""
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} -> {"a.b": 1}; the items of arrays by their numbers."""
    if isinstance(value, list):
        value = dict(enumerate(cast("list[object]", value)))
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    table = cast("dict[object, object]", value)
    return {key: leaf for name, inner in table.items() for key, leaf in _flat(inner, f"{prefix}{name}.").items()}
