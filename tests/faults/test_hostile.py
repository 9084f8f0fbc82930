"""Files made to harm: an error within seconds, in a bounded amount of memory, and nothing written elsewhere."""

import io
import json
import os
import resource
import struct
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from findings import finding, same_finding
from mutations import within
from PIL import Image
from safetensors.torch import save

from advmix_cli import checkpoint, pickled, state
from advmix_cli.ablation.cells import cells
from advmix_cli.data.folder import folder
from advmix_cli.errors import AdvmixError, CheckpointError, DataError, RecipeError, RunDirectoryError
from advmix_cli.evaluation.notebook import Written
from advmix_cli.recipe.load import load
from advmix_cli.recipe.shipped import ROOT
from advmix_cli.recipe.table import load_any, load_table
from advmix_cli.report.results import Results
from advmix_cli.seals import digest

DIGITS = (ROOT / "digits.toml").read_text(encoding="utf-8")


def refused(error, work):
    """The message of `error`, within 5 seconds of this process and 100 MB more than it has ever held."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):  # a processor that is shared can take twice its time
        started = time.process_time()
        with pytest.raises(error) as caught:
            work()
        if (seconds := time.process_time() - started) < 5:
            break
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert seconds < 5, f"{seconds:.1f} s"
    assert grown < 100, f"{grown:.0f} MB"
    assert len(str(caught.value)) < 20_000
    return str(caught.value)


def framed(header, data=b"", claim=None):
    return struct.pack("<Q", len(header) if claim is None else claim) + header + data


def entry(**changes):
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}


def named(**tensors):
    return json.dumps(tensors).encode()


def repeated(piece, size):
    return b"{" + b",".join([piece] * (size // (len(piece) + 1))) + b"}"


MANY = repeated(b'"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}', 99_000_000)
TENSORS = {
    "a header of 100 MB": lambda: framed(b" " * 99_999_999 + b"{"),
    "a header of 2 million tensors": lambda: framed(MANY),
    "a header that claims 2^64 bytes": lambda: framed(b"{}", claim=2**64 - 1),
    "a header that claims more than there is": lambda: framed(b"{}", claim=3_000_000),
    "4 MB of brackets": lambda: framed(b'{"a":' + b"[" * 4_000_000),
    "4 MB of tensors": lambda: framed(repeated(b'"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}', 4_000_000)),
    "4 MB of metadata": lambda: framed(named(__metadata__={"advmix": "[" * 3_900_000})),
    "metadata that are no text": lambda: framed(named(__metadata__={"advmix": {"a": 1}})),
    "not UTF-8": lambda: framed(b'{"\xff\xfe":{}}'),
    "an unknown type": lambda: framed(named(a=entry(dtype="F13")), b"1234"),
    "a negative shape": lambda: framed(named(a=entry(shape=[-1])), b"1234"),
    "a shape above all numbers": lambda: framed(named(a=entry(shape=[2**62, 2**62])), b"1234"),
    "offsets beyond the end": lambda: framed(named(a=entry(data_offsets=[0, 400])), b"1234"),
    "offsets that go back": lambda: framed(named(a=entry(data_offsets=[4, 0])), b"1234"),
    "offsets that overlap": lambda: framed(named(a=entry(), b=entry()), b"1234"),
    "a hole": lambda: framed(named(a=entry(data_offsets=[4, 8])), b"12345678"),
    "a shape that is not its bytes": lambda: framed(named(a=entry(shape=[3])), b"1234"),
    "more bytes than tensors": lambda: framed(named(a=entry()), b"12345678"),
    "the same name twice": lambda: framed(b'{"a":' + json.dumps(entry()).encode() + b',"a":1}', b"1234"),
    "nothing": lambda: b"",
    "a page": lambda: b"<!DOCTYPE html><html>404</html>" * 30,
    "a recipe of a million levels": lambda: save({}, {"advmix": '{"schema": 2, "recipe": ' + '{"a":' * 500_000}),
    "a number of a million digits": lambda: save({}, {"advmix": '{"schema": 2, "epoch": ' + "9" * 1_000_000 + "}"}),
}


@pytest.mark.parametrize("name", TENSORS)
def test_safetensors(tmp_path, name):
    path = tmp_path / "x.safetensors"
    path.write_bytes(TENSORS[name]())
    assert refused(CheckpointError, lambda: checkpoint.load(path)).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["x.safetensors", "results.json", "r.toml"])
def test_a_file_without_an_end(tmp_path, name):
    path = tmp_path / name
    path.symlink_to("/dev/zero")
    match name:
        case "x.safetensors":
            refused(CheckpointError, lambda: checkpoint.load(path))
        case "results.json":
            path.unlink()
            with path.open("wb") as file:
                file.truncate(10**12)  # a terabyte that takes no place
            assert "is damaged or was changed" in refused(RunDirectoryError, lambda: Results.load(tmp_path))
        case "r.toml":
            refused(AdvmixError, lambda: load(str(path)))


def test_pipes_are_not_waited_for(tmp_path):
    """Where a run directory should have files."""
    (tmp_path / "state").mkdir()
    found = finding(True)
    (tmp_path / "notes").mkdir()
    for name in ("results.json", f"notes/{digest('a')[:32]}.safetensors", "state/000001-000001.json", "x.safetensors"):
        os.mkfifo(tmp_path / name)
    with within(20):
        assert "is damaged or was changed" in refused(RunDirectoryError, lambda: Results.load(tmp_path))
        refused(RunDirectoryError, lambda: state.newest(tmp_path / "state", lambda _: None))
        refused(CheckpointError, lambda: checkpoint.load(tmp_path / "x.safetensors"))
        notes = Written(tmp_path / "notes", "me", torch.device("cpu"))
        assert same_finding(notes.once("a", (1,), lambda: found), found)


def lines(line, size=60_000):
    return DIGITS + "\n" + "\n".join(line(number) for number in range(size // len(line(10_000))))


TOML = {
    "a gigabyte": (None, "not a recipe: longer than 65,536 bytes"),
    "unknown keys": (lines(lambda n: f"k{n} = 1"), "unknown key"),
    "unknown tables": (lines(lambda n: f"[t{n}]"), "unknown key"),
    "tables of tables": (lines(lambda n: "[" + ".".join([f"a{n}"] * 19) + "]"), "unknown key"),
    "evaluators": (lines(lambda _: '[[evaluators]]\nkind = "pristine"'), "two are called 'pristine'"),
    "a key of parts": (f"{'a.' * 5_000}a = 1\n", "the line has 10,005 characters"),
    "keys of parts": (DIGITS + f"\n{'a.' * 300}a = 1\n" * 100, "keys are nested too deep"),
    "dots in a table": (f"x = {{{'a.' * 300}a = 1}}\n", "keys are nested too deep"),
    "brackets": (DIGITS + "\nx = " + "[" * 3_000, "arrays are nested too deep"),
    "braces": (DIGITS + "\nx = " + "{a=" * 1_000, "arrays are nested too deep"),
    "an array": (DIGITS + "\nx = [" + "1," * 1_900 + "]", "unknown key 'x'"),
    "a number": (DIGITS + "\nx = " + "9" * 3_900, "unknown key 'x'"),
    "arrays on lines": (DIGITS + "\nx = [\n" + ("[1, [2, [3]]],\n" * 3_000) + "]", "unknown key 'x'"),
}


@pytest.mark.parametrize("name", TOML)
def test_toml(tmp_path, name):
    path, (text, words) = tmp_path / "r.toml", TOML[name]
    if text is None:
        with path.open("wb") as file:
            file.truncate(10**9)
    else:
        path.write_text(text)
    assert words in refused(RecipeError, lambda: load(str(path)))
    refused(AdvmixError, lambda: load_any(str(path)))


def test_many_problems_are_counted_and_some_are_shown(tmp_path):
    (tmp_path / "r.toml").write_text(lines(lambda n: f"k{n} = 1"))
    with pytest.raises(RecipeError) as caught:
        load(str(tmp_path / "r.toml"))
    shown = str(caught.value).split("\n")
    assert len(shown) == 51
    assert shown[-1] == f"and {caught.value.count - 50} more"
    assert caught.value.count > 5_000


@pytest.mark.parametrize(
    "key", ["a." * 60 + "a=1", "a=" + "[" * 5_000, "a" * 10_000 + "=1", "x={" + "a." * 500 + "a=1}"]
)
def test_settings(key):
    message = refused(RecipeError, lambda: load("digits", [key]))
    assert message.startswith("--set ")
    assert len(message) < 400


# ---- names that are paths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/x", "..", "", "a\nb", "a\x1b[2Jb", "a\\..\\b:c", "x" * 41])
def test_an_evaluator_s_name_is_no_path(name):
    """It becomes a part of a file's name."""
    with pytest.raises(RecipeError):
        load("digits", [f"evaluators=[{{kind='pristine', name={json.dumps(name)}}}]"])


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc/passwd", "..", ".", "a/../../b", "~", "λ/δ", "con", "-rf", "$(id)"]
)
def test_a_row_s_name_stays_in_its_table(tmp_path, name):
    table = f'base = "digits"\n[[rows]]\nname = {json.dumps(name)}\n'
    (tmp_path / "t.toml").write_text(table)
    (cell,) = cells(load_table(str(tmp_path / "t.toml")), 1, tmp_path / "runs" / "t")
    assert cell.directory.parent == tmp_path / "runs" / "t"
    assert cell.directory.name.strip("abcdefghijklmnopqrstuvwxyz0123456789-") == ""
    assert not cell.directory.name.startswith(("-", "."))


@pytest.mark.parametrize("name", ["...toml", "..toml", ".toml", "....toml"])
def test_a_table_s_name_is_a_name(tmp_path, name):
    (tmp_path / name).write_text('base = "digits"\n[[rows]]\nname = "a"\n')
    assert load_table(str(tmp_path / name)).name.strip(".") == load_table(str(tmp_path / name)).name != ""


@pytest.mark.parametrize(
    "name", ["../recipes/digits", "tables/../digits", "tables/../../README", "/", "./digits", "a/b"]
)
def test_a_recipe_s_name_with_slashes_is_a_path_and_no_shipped_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for find in (load, load_table, load_any):
        with pytest.raises(AdvmixError, match=r"no such file|is not a file"):
            find(name)


def test_an_archive_cannot_write_beside_itself(tmp_path):
    """What torch pickles is a zip file, whose members can have any name: they are read, and never unpacked."""
    torch.save({"weight": torch.ones(3)}, whole := io.BytesIO())
    path = tmp_path / "inner" / "x.pt"
    path.parent.mkdir()
    for name in ("../../evil", "/tmp/advmix-evil", "x/../../evil"):
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
            for member in source.namelist():
                target.writestr(member, source.read(member))
            target.writestr(name, b"evil")
        with suppress(CheckpointError):
            assert pickled.tensors(path).tensors.keys() == {"weight"}
        assert sorted(file.name for file in tmp_path.rglob("*")) == ["inner", "x.pt"]
        assert not Path("/tmp/advmix-evil").exists()


def test_a_tensor_s_name_is_no_path(tmp_path):
    torch.save({"../../evil": torch.ones(3)}, tmp_path / "x.pt")
    assert pickled.tensors(tmp_path / "x.pt").tensors.keys() == {"../../evil"}
    assert [file.name for file in tmp_path.rglob("*")] == ["x.pt"]


def test_a_table_of_many_rows(tmp_path):
    """Each is compared with all others: not one by one."""
    rows = ",\n".join(f'{{name = "{number}", set = {{seed = {number}}}}}' for number in range(500))
    (tmp_path / "t.toml").write_text(f'base = "digits"\nrows = [\n{rows}\n]\n')
    started = time.process_time()
    assert len(load_table(str(tmp_path / "t.toml")).rows) == 500
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (f"schedule.epochs=0x{'f' * 3_900}", "a number without an end"),
        ('evaluators=[{kind="pristine", batch_size=9999999999999999999999}]', "less than or equal to 1000000"),
        ("optimizer.weight_decay=1e308", f"less than or equal to 3{'0' * 38}"),
        ('optimizer={kind="yogi", lr=0.01, initial_accumulator=1e300}', f"less than or equal to 3{'0' * 38}"),
    ],
)
def test_numbers_that_no_machine_has(setting, words):
    assert words in refused(RecipeError, lambda: load("digits", [setting]))


@pytest.mark.parametrize(
    "state",
    [
        {"w": torch.ones(2, dtype=torch.complex128)},
        {"__metadata__": torch.ones(2)},
        {"w\x1b[31m": torch.ones(2)},
        {"w": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)},
    ],
    ids=["complex", "metadata", "escape", "nested"],
)
def test_tensors_that_no_file_holds(tmp_path, state):
    torch.save(state, tmp_path / "x.pt")
    refused(CheckpointError, lambda: pickled.tensors(tmp_path / "x.pt"))


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        Image.new("L", (9000, 9000)).save(tmp_path / part / "a" / "0.png")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"0\.png is 9000x9000: above 64,000,000 pixels"):
        folder(str(tmp_path), size=8, channels=3, say=lambda _: None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000


def test_what_the_image_library_stumbles_over_is_one_message(tmp_path, monkeypatch):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "test" / "a").mkdir(parents=True)
    for part in ("train", "test"):
        Image.new("L", (8, 8)).save(tmp_path / part / "a" / "0.png")
    monkeypatch.setattr("PIL.ImageOps.exif_transpose", lambda _: struct.unpack("<Q", b""))
    with pytest.raises(DataError, match="cannot be read as an image: unpack requires"):
        folder(str(tmp_path), size=8, channels=3, say=lambda _: None)
