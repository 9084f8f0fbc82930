"""pydantic's errors -> lines for a person: position, key, what is wrong, what was probably meant."""

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from advmix_cli.recipe.positions import Path, Position
from advmix_cli.recipe.suggest import did_you_mean


def describe(error: ValidationError, model: type[BaseModel], data: object, where: Mapping[Path, Position]) -> list[str]:
    """One line for each problem of `data`, in the file's order: "FILE:LINE:COLUMN: what is wrong"."""
    lines: list[tuple[Position, str]] = []
    for detail in error.errors(include_url=False):
        # A name derived from a field that is itself wrong is no second problem.
        if detail["type"] == "default_factory_not_called":
            continue
        path = _path(detail["loc"], data)
        position = next(where[path[:end]] for end in range(len(path), -1, -1) if path[:end] in where)
        lines.append((position, f"{position}: {_message(detail, path, model)}"))
    lines.sort(key=lambda line: (line[0].place, line[0].line or 0, line[0].column or 0))
    return [line for _, line in lines]


def _path(loc: tuple[int | str, ...], data: object) -> Path:
    """pydantic's location without the tags of unions: each part is a key of `data`, the last perhaps a missing one."""
    path: Path = ()
    for index, part in enumerate(loc):
        if isinstance(data, dict):
            content = cast("dict[str, object]", data)
            if part in content:
                path, data = (*path, part), content[part]
            elif index == len(loc) - 1 and part not in content.values():
                path = (*path, part)
        elif isinstance(data, list) and isinstance(part, int):
            items = cast("list[object]", data)
            path, data = (*path, part), items[part]
    return path


def _message(detail: ErrorDetails, path: Path, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in path) or "the file"
    match detail["type"]:
        case "extra_forbidden":
            return _unknown_key(path, detail["loc"], model)
        case "missing":
            return f"{_section(path[:-1])} lacks '{path[-1]}'"
        case "union_tag_not_found":
            tag = detail.get("ctx", {})["discriminator"]
            return f"{_section(path)} lacks {tag}, one of {_choices(path, model)}"
        case "union_tag_invalid":
            context = detail.get("ctx", {})
            found, tag = context["tag"], str(context["discriminator"]).strip("'")
            options = [option.strip().strip("'") for option in str(context["expected_tags"]).split(",")]
            return (
                f"{key}.{tag} = {_quote(found)} is not one of {', '.join(options)}{did_you_mean(str(found), options)}"
            )
        case "literal_error":
            options = [
                option.strip("'") for option in str(detail.get("ctx", {})["expected"]).replace(" or ", ", ").split(", ")
            ]
            found = detail["input"]
            return f"{key} = {_quote(found)} is not one of {', '.join(options)}{did_you_mean(str(found), options)}"
        case "pixels":
            return f"{key} = {_quote(detail['input'])} {detail['msg']}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return f"{key} = {_quote(detail['input'])} must be {detail['msg'].removeprefix('Input should be ')}"
        case "finite_number":
            return f"{key} = {_quote(detail['input'])} is not a finite number"
        case kind if kind.endswith(("_type", "_parsing")) or kind in (
            "int_from_float",
            "string_pattern_mismatch",
            "too_short",
            "too_long",
        ):
            return f"{key} = {_quote(detail['input'])}: {detail['msg'][0].lower()}{detail['msg'][1:]}"
        case _:
            return f"{key}: {detail['msg']}" if path else detail["msg"]


def _unknown_key(path: Path, loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """The key belongs to another kind of the same table, or it is misspelt, or it is nobody's."""
    key = str(path[-1])
    chosen = _models_at(loc[:-1], model)
    siblings = [kind for kind in _models_at(path[:-1], model) if kind not in chosen]
    owners = [_tag(kind) for kind in siblings if key in kind.model_fields]
    if owners and chosen:
        return (
            f"'{key}' has no meaning for {_section(path[:-1])} {_tag(chosen[0])}: it belongs to {' and '.join(owners)}"
        )
    known = [name for kind in chosen for name in kind.model_fields]
    return f"unknown key '{key}' in {_section(path[:-1])}{did_you_mean(key, known) or _list(known)}"


def _models_at(loc: Sequence[int | str], model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that the table at `loc` may have; a tag in `loc` narrows a union to its member."""
    here = [model]
    for part in loc:
        tagged = [kind for kind in here if part in _tags(kind)]
        if tagged:
            here = tagged
        elif isinstance(part, str):
            here = [
                inner
                for kind in here
                if part in kind.model_fields
                for inner in _models_in(kind.model_fields[part].annotation)
            ]
    return here


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    origin = get_origin(annotation)
    if origin in (Annotated, Union, UnionType, tuple, list):
        for argument in get_args(annotation):
            yield from _models_in(argument)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """The values of the field that tells a union's members apart: `kind`, or `source` of the data."""
    for name in ("kind", "source"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return get_args(field.annotation)
    return ()


def _tag(model: type[BaseModel]) -> str:
    name = "kind" if "kind" in model.model_fields else "source"
    return f"{name} = {_quote(_tags(model)[0])}"


def _choices(path: Path, model: type[BaseModel]) -> str:
    return ", ".join(str(tag) for kind in _models_at(path, model) for tag in _tags(kind))


def _section(path: Path) -> str:
    return f"[{'.'.join(str(part) for part in path)}]" if path else "the file"


def _quote(value: object) -> str:
    match value:
        case str():
            text = '"' + value.encode("unicode_escape").decode().replace('"', '\\"') + '"'
        case bool():
            text = str(value).lower()
        case dict():
            text = "a table"
        case list():
            text = "an array"
        case _:
            text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _list(known: Sequence[str]) -> str:
    return f" (known: {', '.join(known)})" if known else ""
