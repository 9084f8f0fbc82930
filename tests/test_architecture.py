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
    {"commands"},
    {"document"},
    {"ablation", "bench", "plan", "probing", "selftest", "verify", "diagnosis"},
    {"run"},
    {"fit", "foreign_model"},
    {"training_files", "validation"},
    {"course"},
    {"measure", "fitting"},
    {"attacked"},
    {"engine"},
    {"cost"},
    {"build"},
    {"builders"},
    {"training", "report", "factories"},
    {"evaluation", "data", "checkpoint", "recipe", "state"},
    {"method", "networks", "locks", "stopping", "pickled", "failures"},
    {"machine", "ranks"},
    {"errors", "seeding", "files", "seals", "tensors", "memory", "clock", "rundir", "tied", "__init__"},
)
# Within a floor, one way only: an evaluator is given images, a checkpoint holds a recipe.
BESIDE = {("evaluation", "data"), ("checkpoint", "recipe"), ("state", "checkpoint"), ("tensors", "files")}
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


@EVERY_MODULE
def test_the_builders_are_called_through_build(module):
    assert "builders" not in ours(module) or package(module) in ("build", "builders")


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
    """What is imported when a module is: the body, without functions and what only type checkers read."""
    for module in (Path("cli.py"), *(module for module in MODULES if package(module) == "commands")):
        tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
        found = {
            node.module if isinstance(node, ast.ImportFrom) else alias.name
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        light = {"advmix_cli", "advmix_cli.errors", "advmix_cli.ranks.torchrun", "advmix_cli.stopping"}
        ours = {name for name in found if name.startswith("advmix_cli")}
        assert {name for name in ours if not name.startswith("advmix_cli.commands")} <= light, module
        assert "torch" not in found


@EVERY_MODULE
def test_only_the_ranks_know_torch_distributed(module):
    """Not even by an attribute of torch."""
    if package(module) != "ranks":
        assert "torch.distributed" not in (ROOT / module).read_text(encoding="utf-8")


def calls(module):
    """What is called in a module, as it is written: "open", "path.open", "subprocess.run"."""
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@EVERY_MODULE
def test_files_are_written_by_one_writer(module):
    """But for the lock, whose content means nothing."""
    if module in (Path("files.py"), Path("locks.py")):
        return
    for name, call in calls(module):
        last = name.rpartition(".")[2]
        assert last not in ("write_text", "write_bytes", "save_file", "truncate", "rename"), f"{module}: {name}"
        assert name not in ("torch.save", "os.open", "json.dump", "Path.replace"), f"{module}: {name}"
        if last == "open":
            mode = next((ast.unparse(value) for value in [*call.args, *(k.value for k in call.keywords)]), "'r'")
            assert name == "Image.open" or mode in ("'r'", "'rb'"), f"{module}: {name}({mode})"


STARTING = {
    Path(path)
    for path in (
        "selftest.py", "ablation/child.py", "ablation/slurm/scheduler.py", "ablation/slurm/task.py", "tied.py",
    )
}  # fmt: skip


@EVERY_MODULE
def test_no_shell_is_ever_called(module):
    """A child process is given words, never a line; and the only ones are advmix itself and SLURM's commands."""
    for name, call in calls(module):
        assert name not in ("os.system", "os.popen", "subprocess.getoutput", "eval", "exec"), f"{module}: {name}"
        assert all(keyword.arg != "shell" for keyword in call.keywords), f"{module}: {name}"
        if name.startswith(("subprocess.", "os.exec", "os.spawn", "pickle.")):
            assert module in STARTING, f"{module}: {name}"
