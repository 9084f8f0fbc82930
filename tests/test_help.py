"""Every command explains itself, and what needs no torch imports none."""

import json
import os
import re
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from advmix_cli import __version__
from advmix_cli.cli import app

ROOT = get_command(app)


def walk(command, path=()):
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*path, name))


COMMANDS = dict(walk(ROOT))
EVERY_COMMAND = pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "advmix")


def test_these_are_the_commands():
    assert set(COMMANDS) == {
        (), ("train",), ("eval",), ("ablate",), ("status",), ("report",), ("compare",), ("verify",), ("plan",),
        ("bench",), ("probe",), ("import",), ("recipe",),
        ("recipe", "check"), ("recipe", "show"), ("recipe", "list"), ("recipe", "schema"),
        ("selftest",), ("selftest", "resume"),
    }  # fmt: skip


@EVERY_COMMAND
def test_help_names_every_option_and_explains_it(path):
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "300"})
    assert (shown.exit_code, shown.stderr) == (0, "")
    command = COMMANDS[path]
    assert command.help
    words = " ".join(shown.stdout.split())
    assert command.help.split("\n")[0] in words
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.split("[")[0].strip() in words, parameter.name
        for option in parameter.opts:
            assert not option.startswith("-") or option in words


@EVERY_COMMAND
def test_h_is_help(path):
    assert CliRunner().invoke(app, [*path, "-h"]).stdout == CliRunner().invoke(app, [*path, "--help"]).stdout


def test_help_recipe_commands_and_who_only_looks_import_no_torch():
    commands = [[*path, "--help"] for path in COMMANDS]
    commands += [["recipe", "check", "digits", "table1"], ["recipe", "show", "digits"], ["recipe", "list"]]
    commands += [["recipe", "schema"], ["--version"]]
    commands += [["ablate", *what, "--out", "nowhere"] for what in (["--status"], ["--dry-run", "--format", "json"])]
    script = f"""
import sys
from typer.testing import CliRunner
from advmix_cli.cli import app
for command in {commands!r}:
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, (command, found.output)
    heavy = {{"torch", "numpy", "scipy", "sklearn", "torchvision", "safetensors", "matplotlib"}} & set(sys.modules)
    assert not heavy, (command, heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_color_is_honoured_where_color_is_forced():
    """Bold and dim are no colours: of the parameters of SGR only 0, 1, 2, 3 and 4 may remain."""

    def codes(**env):
        done = subprocess.run(
            [sys.executable, "-m", "advmix_cli", "train", "nothing"],
            capture_output=True, text=True, check=False, env={**os.environ, "FORCE_COLOR": "1", **env},
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stdout == ""
        assert "nothing" in done.stderr
        return {int(code) for found in re.findall(r"\x1b\[([\d;]*)m", done.stderr) for code in found.split(";") if code}

    assert codes(NO_COLOR="1") <= {0, 1, 2, 3, 4}
    assert 31 in codes(NO_COLOR="")


def test_version():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"advmix {__version__}\n"


def follow(node, document):
    return document["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def test_schema_says_what_a_recipe_needs():
    schema = json.loads(CliRunner().invoke(app, ["recipe", "schema"]).stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["required"]) == {"data", "model", "threat", "maximizer", "optimizer", "schedule"}
    assert schema["additionalProperties"] is False
    tags = {
        name: set(schema["properties"][name]["discriminator"]["mapping"])
        for name in ("data", "model", "maximizer", "optimizer", "schedule")
    }
    assert tags == {
        "data": {"digits", "cifar10", "cifar100", "fashion-mnist", "folder"},
        "model": {"preact-resnet", "wide-resnet"},
        "maximizer": {"none", "attack", "mix-then-attack", "attack-then-mix", "integrated"},
        "optimizer": {"sgd", "adam", "adamw", "yogi"},
        "schedule": {"steps", "cosine", "one-cycle"},
    }
    evaluators = schema["properties"]["evaluators"]["items"]["discriminator"]["mapping"]
    assert set(evaluators) == {"pristine", "pgd", "autoattack"}
    threat = follow(schema["properties"]["threat"], schema)
    assert threat["required"] == ["epsilon"]
    assert {option["type"] for option in threat["properties"]["epsilon"]["anyOf"]} == {"number", "string"}
    for name, definition in schema["$defs"].items():
        assert definition["additionalProperties"] is False, name
        assert definition["description"], name
