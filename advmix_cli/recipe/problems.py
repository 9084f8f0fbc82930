"""pydantic's errors -> lines for a person: position, key, what is wrong, what was probably meant."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from advmix_cli.recipe.positions import Path, Position
from advmix_cli.recipe.suggest import did_you_mean

NO_MEANING = " has no meaning for "
"""What is said of a field that another kind of its table has."""


def describe(error: ValidationError, model: type[BaseModel], where: Mapping[Path, Position]) -> list[str]:
    """One line for each problem, in the file's order: "FILE:LINE:COLUMN: what is wrong"."""
    lines: list[tuple[Position, str]] = []
    for detail in error.errors(include_url=False):
        # A name derived from a field that is itself wrong is no second problem.
        if detail["type"] == "default_factory_not_called":
            continue
        path, here = _walk(detail["loc"], model)
        key = path
        if detail["type"] == "union_tag_invalid":  # pydantic locates the table, and it is one of its keys
            key = (*path, _discriminator(detail))
        position = next(where[key[:end]] for end in range(len(key), -1, -1) if key[:end] in where)
        lines.append((position, f"{position}: {_message(detail, path, here, model)}"))
    lines.sort(key=lambda line: (line[0].place, line[0].line or 0, line[0].column or 0))
    return [line for _, line in lines]


def _discriminator(detail: ErrorDetails) -> str:
    """The key that tells a union's members apart, which pydantic quotes."""
    return str(detail.get("ctx", {})["discriminator"]).strip("'")


def _walk(loc: Sequence[int | str], model: type[BaseModel]) -> tuple[Path, list[type[BaseModel]]]:
    """pydantic's location -> the path in the file, and the models that the table there may have.

    A location names the member of a union by its tag, a path does not: ("schedule", "steps", "epochs") is the key
    schedule.epochs of a schedule whose kind is "steps".
    """
    path: Path = ()
    here = [model]
    for part in loc:
        members = [kind for kind in here if part in _tags(kind)] if len(here) > 1 else []
        if members:
            here = members
            continue
        path = (*path, part)
        if isinstance(part, str):
            here = _field_models(here, part)
    return path, here


def _all_models(path: Path, model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that the table at `path` may have, whatever the kinds of the tables around it."""
    here = [model]
    for part in path:
        if isinstance(part, str):
            here = _field_models(here, part)
    return here


def _field_models(models: Sequence[type[BaseModel]], name: str) -> list[type[BaseModel]]:
    return list(dict.fromkeys(found for kind in models for found in _models_of(kind, name)))


@cache
def _models_of(model: type[BaseModel], name: str) -> tuple[type[BaseModel], ...]:
    """Those that the field `name` may hold; a file can have thousands of problems, and models are few."""
    return tuple(_models_in(model.model_fields[name].annotation)) if name in model.model_fields else ()


def _message(detail: ErrorDetails, path: Path, here: Sequence[type[BaseModel]], model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in path) or "the file"
    match detail["type"]:
        case "extra_forbidden":
            _, chosen = _walk(detail["loc"][:-1], model)
            return _unknown_key(path, chosen, _all_models(path[:-1], model))
        case "missing":
            return f"{_section(path[:-1])} lacks '{path[-1]}'"
        case "union_tag_not_found":
            tag = detail.get("ctx", {})["discriminator"]
            return f"{_section(path)} lacks {tag}, one of {', '.join(str(tag) for kind in here for tag in _tags(kind))}"
        case "union_tag_invalid":
            context = detail.get("ctx", {})
            found, tag = context["tag"], _discriminator(detail)
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
        case "tuple_type" | "list_type":
            return f"{key} = {_quote(detail['input'])} must be an array"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{key} = {_quote(detail['input'])} must be a table"
        case "string_pattern_mismatch":
            return f"{key} = {_quote(detail['input'])} holds characters that a name cannot have"
        case kind if kind.endswith(("_type", "_parsing")) or kind in (
            "int_from_float",
            "too_short",
            "too_long",
        ):
            return f"{key} = {_quote(detail['input'])}: {detail['msg'][0].lower()}{detail['msg'][1:]}"
        case _:
            return f"{key}: {detail['msg']}" if path else detail["msg"]


def _unknown_key(path: Path, chosen: Sequence[type[BaseModel]], possible: Sequence[type[BaseModel]]) -> str:
    """The key belongs to another kind of the same table, or it is misspelt, or it is nobody's."""
    key = str(path[-1])
    shown = f"'{key}'" if key.isprintable() else repr(key)
    owners = [_tag(kind) for kind in possible if kind not in chosen and key in kind.model_fields]
    if owners and chosen:
        where = f"{_section(path[:-1])} {_tag(chosen[0])}"
        return f"{shown}{NO_MEANING}{where}: it belongs to {' and '.join(owners)}"
    known = [name for kind in chosen for name in kind.model_fields]
    return f"unknown key {shown} in {_section(path[:-1])}{did_you_mean(key, known) or _list(known)}"


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    origin = get_origin(annotation)
    if origin in (Annotated, Union, UnionType, tuple, list):
        for argument in get_args(annotation):
            yield from _models_in(argument)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


@cache
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


def _section(path: Path) -> str:
    return f"[{'.'.join(str(part) for part in path)}]" if path else "the file"


def _quote(value: object) -> str:
    match value:
        case str():
            shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
            text = '"' + shown.replace('"', '\\"') + '"'
        case bool():
            text = str(value).lower()
        case dict():
            text = "a table"
        case list():
            text = "an array"
        case int() if value.bit_length() > 10_000:
            text = "a number without an end"  # Python refuses to write it
        case _:
            text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _list(known: Sequence[str]) -> str:
    return f" (known: {', '.join(known)})" if known else ""
