"""Imports run one way, floor by floor."""

import ast
import sys
from pathlib import Path

import pytest

import advmix_cli

ROOT = Path(advmix_cli.__file__).parent
FLOORS = (
    {"__main__"},
    {"cli"},
    {"ablation", "bench", "plan", "selftest"},
    {"run"},
    {"fit"},
    {"measure", "fitting"},
    {"attacked"},
    {"engine"},
    {"cost"},
    {"build"},
    {"training", "report"},
    {"evaluation", "data", "checkpoint", "recipe", "state"},
    {"method", "networks", "locks", "stopping", "foreign"},
    {"machine"},
    {"errors", "seeding", "files", "seals", "tensors", "memory", "clock", "__init__"},
)
# Within a floor, one way only: an evaluator is given images, a checkpoint holds a recipe.
BESIDE = {("evaluation", "data"), ("checkpoint", "recipe")}
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
EVERY_MODULE = pytest.mark.parametrize("module", MODULES, ids=str)


def package(module):
    return module.parts[0].removesuffix(".py")


def floor(name):
    (found,) = (index for index, names in enumerate(FLOORS) if name in names)
    return found


def imports(module):
    """The absolute names of all that a module imports, inside functions too; relative imports are not used."""
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            if node.module == "advmix_cli":
                yield from (f"advmix_cli.{alias.name}" for alias in node.names)
            else:
                yield node.module


def ours(module):
    """The packages of advmix_cli that a module imports."""
    for name in imports(module):
        first, _, rest = name.partition(".")
        if first == "advmix_cli":
            part = rest.split(".")[0]
            yield "__init__" if part in ("", "__version__") else part


def theirs(module):
    """The distributions' top-level packages that a module imports."""
    names = {name.partition(".")[0] for name in imports(module)}
    return names - {"advmix_cli"} - sys.stdlib_module_names


def test_every_module_stands_on_a_floor():
    assert {package(module) for module in MODULES} == set().union(*FLOORS)


@EVERY_MODULE
def test_imports_go_down(module):
    here = package(module)
    for there in ours(module):
        allowed = there == here or floor(there) > floor(here) or (here, there) in BESIDE
        assert allowed, f"{module} imports {there}"


def test_what_may_be_imported_beside_is():
    found = {(package(module), there) for module in MODULES for there in ours(module)}
    assert found >= BESIDE


@pytest.mark.parametrize(
    ("name", "own", "others"),
    [
        ("recipe", {"recipe", "errors", "files"}, {"pydantic", "pydantic_core", "tree_sitter", "tree_sitter_toml"}),
        ("method", {"method"}, {"torch", "scipy"}),
        ("networks", {"networks"}, {"torch"}),
        ("errors", set(), set()),
        ("files", set(), set()),
    ],
)
def test_what_the_ends_may_know(name, own, others):
    for module in MODULES:
        if package(module) == name:
            assert set(ours(module)) <= own, module
            assert theirs(module) <= others, module


def test_the_commands_import_torch_only_inside_functions():
    """What is imported when the module is: the body, without functions and what only type checkers read."""
    tree = ast.parse((ROOT / "cli.py").read_text(encoding="utf-8"))
    found = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name in found if name.startswith("advmix_cli")} == {
        "advmix_cli",
        "advmix_cli.errors",
        "advmix_cli.stopping",
    }
    assert "torch" not in found
