"""A module of others: made by Python code that its user names, with weights from a safetensors file.

The code is run, which naming it is the consent to; a file of weights never runs anything.
"""

import importlib
import importlib.util
import operator
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from advmix_cli.errors import CheckpointError, ForeignModelError, first_line, some
from advmix_cli.recipe.suggest import did_you_mean


class Made(NamedTuple):
    """`source` is the digest of the files that its code stands in."""

    module: nn.Module
    source: str


def make(factory: str, args: Mapping[str, Any]) -> Made:
    """The module that `factory` makes of `args`: "package.module:name" or "path/to/file.py:name". Modules are found
    beside that file, or in the directory that this was started in, before where Python looks. What is random in it, is
    so from seed 0. ForeignModelError if it cannot be made."""
    place, _, name = factory.rpartition(":")
    path = Path(place) if place.endswith(".py") or "/" in place else None
    beside = Path.cwd() if path is None else path.parent.resolve()
    with _first_looked_in(beside), _own_numbers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        code = _from_file(path) if path else _from_package(place)
        try:
            found = operator.attrgetter(name)(code)
        except AttributeError:
            known = [each for each, value in vars(code).items() if callable(value) and not each.startswith("_")]
            raise ForeignModelError(f"{place} has no '{name}'{did_you_mean(name, known)}") from None
        if isinstance(found, nn.Module):
            if args:
                raise ForeignModelError(f"{factory} is a module already, and takes no arguments")
            made = found
        elif callable(found):
            torch.manual_seed(0)  # whatever its import has drawn, or another one before
            made = _told(f"{factory}({', '.join(f'{key}={value!r}' for key, value in args.items())})", found, args)
        else:
            raise ForeignModelError(f"{factory} is {_a(found)}, and nothing that makes a module")
    if not isinstance(made, nn.Module):
        raise ForeignModelError(f"{factory} makes {_a(made)}, and a torch.nn.Module is wanted")
    return Made(made, _digest_of(_sources(code)))


def _sources(code: ModuleType) -> set[Path]:
    """The files of Python code that may have a part in what `code` makes: its own, those of its package, and those that
    have been imported from below its directory."""
    package = code.__name__.partition(".")[0]
    own = _file(code)
    files = {own}
    for name, module in list(sys.modules.items()):
        file = _file(module)
        is_beside = own and file and file.is_relative_to(own.parent) and "site-packages" not in file.parts
        if is_beside or name == package or name.startswith(f"{package}."):
            files.add(file)
    return {file for file in files if file}


def _file(module: object) -> Path | None:
    """That of a Python module; one that is lazy is not woken."""
    file = getattr(module, "__dict__", {}).get("__file__")
    return Path(file).resolve() if isinstance(file, str) and file.endswith(".py") and Path(file).is_file() else None


def _digest_of(files: set[Path]) -> str:
    """With their names, but not where they lie."""
    contents = sorted(f"{path.name} {sha256(path.read_bytes()).hexdigest()}" for path in files)
    return sha256("\n".join(contents).encode()).hexdigest()


@contextmanager
def _first_looked_in(directory: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _own_numbers() -> Iterator[None]:
    """What code says all new numbers shall be, they are to that code alone."""
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _from_file(path: Path) -> ModuleType:
    name = f"foreign {path.stem}"  # that no import has
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ForeignModelError(f"{path}: {'not a Python file' if path.exists() else 'no such file'}")
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code  # as an import does: dataclasses look their module up
    _told(str(path), spec.loader.exec_module, {"module": code})
    return code


def _from_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ForeignModelError(
                f"there is no module '{error.name}': it is neither installed, nor on PYTHONPATH, nor in this directory"
            ) from None
        raise ForeignModelError(f"importing {name}: {first_line(error)}") from None
    except (Exception, SystemExit) as error:
        raise ForeignModelError(f"importing {name}: {first_line(error)}") from None


def _told(what: str, function: Any, args: Mapping[str, Any]) -> Any:
    try:
        return function(**args)
    except (Exception, SystemExit) as error:
        raise ForeignModelError(f"{what}: {first_line(error)}") from error


def _a(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def load(module: nn.Module, state: Mapping[str, Tensor], place: str) -> None:
    """Put `state` into `module`, whole; names that begin with "module.", as DataParallel has them, are read without it.
    CheckpointError lists what is missing, too many, or of another shape or kind; `place` is the file's name."""
    own = module.state_dict()
    prefix = "module."
    if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in own):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        both = sorted(state.keys() & own.keys())
        pairs = [(name, tuple(state[name].shape), tuple(own[name].shape)) for name in both]
        found = {
            "missing": sorted(own.keys() - state.keys()),
            "unexpected": sorted(state.keys() - own.keys()),
            "of another shape": [f"{name} {there} for {here}" for name, there, here in pairs if there != here],
        }
        told = "; ".join(f"{what}: {some(names)}" for what, names in found.items() if names)
        raise CheckpointError(f"{place} does not fit the module: {told or first_line(error)}") from None
    wrong = [
        name
        for name, value in state.items()
        if name in own and value.is_floating_point() != own[name].is_floating_point()
    ]
    if wrong:
        raise CheckpointError(f"{place} does not fit the module: of another kind of number: {some(wrong)}")
