"""Pickled files: their tensors come out, and nothing in them runs."""

import os
import pickle
import resource
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from advmix_cli.cli import app

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3).t(), "bn.num_batches_tracked": torch.tensor(7)}


def import_(source, target, *words):
    return CliRunner().invoke(app, ["import", str(source), str(target), *words])


OTHER = {name: -value for name, value in STATE.items()}


def test_another_network_in_the_file_is_said_and_can_be_chosen(tmp_path):
    source, target = tmp_path / "a.pt", tmp_path / "a.safetensors"
    beside = {"epoch": 3, "args": {"lr": 0.1}, "momenta": {0: torch.ones(1)}}
    torch.save({"state_dict": STATE, "state_dict_ema": OTHER, **beside}, source)
    assert import_(source, target).stderr == (
        f"2 tensors under 'state_dict': {target}\n"
        "warning: left out is what it has under state_dict_ema; --key NAME takes that\n"
    )
    assert torch.equal(load_file(target)["conv.weight"], STATE["conv.weight"])
    chosen = import_(source, tmp_path / "b.safetensors", "--key", "state_dict_ema")
    assert chosen.exit_code == 0
    assert torch.equal(load_file(tmp_path / "b.safetensors")["conv.weight"], OTHER["conv.weight"])
    for key in ("args", "ema"):
        missing = import_(source, tmp_path / "c.safetensors", "--key", key)
        assert missing.exit_code == 2
        assert missing.stderr == (
            f"error: {source}: holds no tensors under '{key}'; there are state_dict, state_dict_ema\n"
        )


def test_a_key_that_is_none_of_the_usual_is_named(tmp_path):
    torch.save({"params": STATE, "params_ema": OTHER}, tmp_path / "a.pt")
    done = import_(tmp_path / "a.pt", tmp_path / "a.safetensors")
    assert done.exit_code == 2
    assert " ".join(done.stderr.split()).endswith("; --key takes that under params, params_ema")
    torch.save({1: STATE}, tmp_path / "b.pt")
    assert import_(tmp_path / "b.pt", tmp_path / "b.safetensors", "--key", "1").exit_code == 0


def test_of_several_networks_none_is_chosen(tmp_path):
    source = tmp_path / "a.pt"
    torch.save({"model": STATE, "net": OTHER}, source)
    done = import_(source, tmp_path / "a.safetensors")
    assert done.exit_code == 2
    assert (
        " ".join(done.stderr.split()) == f"error: {source}: holds several networks: model, net; choose one with --key"
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"net": {f"module.{name}": value for name, value in state.items()}, "acc": 1.0},
        *(lambda state, key=key: {key: state, "epoch": 3} for key in ("model_state_dict", "model", "network")),
    ],
)
def test_the_tensors_come_out_bit_for_bit(tmp_path, wrap):
    source, target = tmp_path / "a.pt", tmp_path / "a.safetensors"
    torch.save(wrap(STATE), source)
    done = import_(source, target)
    assert done.exit_code == 0, done.output
    found = load_file(target)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in STATE.items())


def test_numbers_of_every_kind_come_out(tmp_path):
    kinds = [
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    ]
    state = {str(kind): torch.tensor([0, 1]).to(kind) for kind in kinds}
    torch.save(state, tmp_path / "a.pt")
    assert import_(tmp_path / "a.pt", tmp_path / "a.safetensors").exit_code == 0
    found = load_file(tmp_path / "a.safetensors")
    assert {name: (value.dtype, value.tolist()) for name, value in found.items()} == {
        name: (value.dtype, value.tolist()) for name, value in state.items()
    }


def test_of_two_tensors_with_one_name_none_is_chosen(tmp_path):
    torch.save({"w": torch.zeros(1), "module.w": torch.ones(1)}, tmp_path / "a.pt")
    done = import_(tmp_path / "a.pt", tmp_path / "a.safetensors")
    assert done.exit_code == 2
    assert "two tensors have the same name without 'module.'" in " ".join(done.stderr.split())


class Payload:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.mkdir, (str(self.sentinel),)


def test_what_a_pickle_would_run_is_never_run(tmp_path):
    sentinel = tmp_path / "ran"
    for number, content in enumerate((Payload(sentinel), {"state_dict": STATE, "x": Payload(sentinel)})):
        torch.save(content, tmp_path / f"{number}.pt")
        (tmp_path / f"{number}.pth").write_bytes(pickle.dumps(content))
    for path in (*tmp_path.glob("*.pt"), *tmp_path.glob("*.pth")):
        done = import_(path, tmp_path / "out.safetensors")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "not a file of tensors that can be read safely" in " ".join(done.stderr.split())
        done = CliRunner().invoke(app, ["eval", str(path)])
        assert (done.exit_code, done.stdout) == (2, "")
        assert "is a pickle, which can run code when it is read" in " ".join(done.stderr.split())
    assert not sentinel.exists()
    assert not (tmp_path / "out.safetensors").exists()
    pickle.loads(pickle.dumps(Payload(sentinel)))
    assert sentinel.exists()  # it would have


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>Access denied</html>", "it looks like a web page"),
        (b"", "not a file of tensors"),
        (b"\x80\x02garbage", "not a file of tensors"),
        (b"PK\x03\x04" + bytes(100), "not a file of tensors"),
    ],
)
def test_what_is_no_file_of_tensors_is_one_message(tmp_path, content, words):
    source = tmp_path / "a.pt"
    source.write_bytes(content)
    done = import_(source, tmp_path / "out.safetensors")
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", [
    {}, [torch.ones(1)], torch.ones(1), {"a": 1.0},
])  # fmt: skip
def test_what_holds_no_network_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    done = import_(tmp_path / "a.pt", tmp_path / "out.safetensors")
    assert done.exit_code == 2
    assert "holds no mapping of names to tensors" in " ".join(done.stderr.split())


@pytest.mark.parametrize(("name", "value"), [
    (1, torch.ones(1)), ("a", torch.zeros(1).expand(10**13)), ("a", torch.ones(1, device="meta")), ("epoch", 3),
    ("a", torch.ones(1, dtype=torch.complex64)), ("a", torch.ones(1).to_sparse()), ("__metadata__", torch.ones(1)),
])  # fmt: skip
def test_what_no_file_can_hold_is_named(tmp_path, name, value):
    torch.save({"whole": torch.ones(1), name: value}, tmp_path / "a.pt")
    done = import_(tmp_path / "a.pt", tmp_path / "out.safetensors")
    assert done.exit_code == 2
    assert f"a.pt: among its tensors are entries that safetensors cannot hold: {name} (" in done.stderr


def test_a_missing_file_and_an_existing_target_are_told(tmp_path):
    assert import_(tmp_path / "none.pt", tmp_path / "o.safetensors").exit_code == 2
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")  # torch reads it, too
    done = import_(tmp_path / "a.safetensors", tmp_path / "o.safetensors")
    assert done.exit_code == 2
    assert import_(tmp_path / "b.safetensors", tmp_path / "o.safetensors").stderr.endswith("no such file\n")
    assert "a.safetensors is safetensors already" in " ".join(done.stderr.split())
    assert not (tmp_path / "o.safetensors").exists()
    torch.save(STATE, tmp_path / "a.pt")
    (tmp_path / "o.safetensors").write_text("mine")
    done = import_(tmp_path / "a.pt", tmp_path / "o.safetensors")
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    assert (tmp_path / "o.safetensors").read_text() == "mine"


def test_an_archive_that_would_unpack_to_a_thousand_times_its_size_is_not_unpacked(tmp_path):
    torch.save({"weight": torch.zeros(10_000_000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as source,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.namelist():
            target.writestr(member, source.read(member))
    assert (tmp_path / "packed.pt").stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = import_(tmp_path / "packed.pt", tmp_path / "o.safetensors")
    assert done.exit_code == 2
    assert "a compressed archive" in " ".join(done.stderr.split())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # kilobytes


def test_an_archive_that_lists_a_member_many_times_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("data", bytes(1000))
        archive.filelist *= 10
    done = import_(tmp_path / "a.pt", tmp_path / "o.safetensors")
    assert done.exit_code == 2
    assert "which can unpack to any size" in " ".join(done.stderr.split())


def test_tensors_that_share_their_memory_do_not_multiply(tmp_path):
    shared = torch.zeros(100_000)
    torch.save({f"w{number}": shared for number in range(100)}, tmp_path / "a.pt")
    done = import_(tmp_path / "a.pt", tmp_path / "o.safetensors")
    assert done.exit_code == 2
    assert "its tensors share their memory, and would need 40,000,000 bytes on their own" in " ".join(
        done.stderr.split()
    )
    for count, code in ((2, 0), (4, 0), (5, 2)):
        torch.save({f"w{number}": shared for number in range(count)}, tmp_path / "b.pt")
        assert import_(tmp_path / "b.pt", tmp_path / f"{count}.safetensors").exit_code == code


@pytest.mark.parametrize(
    "pickled",
    [
        b"cbuiltins\nbytearray\n(J\x00\x00\x00\x70tR.",
        b"c_codecs\nencode\n" * 25
        + (b"X\x80\0\0\0" + b"a" * 128 + b"X\6\0\0\0latin1\x86R" + b"X\3\0\0\0hex\x86R" * 24 + b"."),
    ],
    ids=["a size", "a code that doubles"],
)  # fmt: skip
def test_bytes_do_not_grow_without_an_end(tmp_path, pickled):
    """torch's reader calls two functions for bytes, and both can be asked for gigabytes by a file of a kilobyte."""
    torch.save({"w": torch.ones(2)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as source, zipfile.ZipFile(tmp_path / "a.pt", "w") as target:
        for member in source.namelist():
            content = b"\x80\x02" + pickled if member.endswith("data.pkl") else source.read(member)
            target.writestr(member, content)
    before, limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, resource.getrlimit(resource.RLIMIT_AS)
    done = import_(tmp_path / "a.pt", tmp_path / "o.safetensors")
    assert done.exit_code == 2
    assert "takes far more memory to read than its tensors have" in " ".join(done.stderr.split())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kilobytes
    assert resource.getrlimit(resource.RLIMIT_AS) == limit


def test_what_has_no_end_is_no_file(tmp_path):
    (tmp_path / "a.pt").symlink_to("/dev/zero")
    assert import_(tmp_path / "a.pt", tmp_path / "o.safetensors").exit_code == 2
    with (tmp_path / "b.pt").open("wb") as file:
        file.truncate(10**12)
    assert import_(tmp_path / "b.pt", tmp_path / "o.safetensors").exit_code == 2
