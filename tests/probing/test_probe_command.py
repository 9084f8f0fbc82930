"""advmix probe: what it prints and draws, and what it says of bad input."""

import json
import struct
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch
from small_probes import OURS, SMALL
from typer.testing import CliRunner

from advmix_cli import checkpoint
from advmix_cli.cli import app
from advmix_cli.errors import MemoryExhaustedError
from advmix_cli.probing.compare import BASELINES
from advmix_cli.probing.probe import _names, probe
from advmix_cli.probing.show import grids

QUICK = [
    "--device", "cpu", "--batch", "12", "--set", "model.width=2", "--set", "data.train_limit=40",
    "--set", "maximizer.ascent.steps=2",
]  # fmt: skip
NONE = ["--set", 'maximizer={kind="none"}']


def advmix(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def unwrapped(text):
    """Captions are as wide as the terminal that the first test of a session had."""
    return " ".join(text.split())


def document(*words):
    done = advmix("probe", *words, *QUICK, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained") / "run"
    settings = [*QUICK[4:], "--set", "schedule.epochs=3", "--set", "evaluators=[]", "--set", "validation.steps=1"]
    assert advmix("train", "digits", "--out", directory, "--device", "cpu", *settings).exit_code == 0
    return directory


def test_a_recipe_alone_is_looked_at_untrained():
    done = advmix("probe", "digits", *QUICK)
    assert (done.exit_code, done.stderr) == (0, "")
    for text in (
        "digits, ours: the first batch of a training, 12 images",
        'network: untrained, as seed 0 makes it; maximizer "integrated", 2 steps of 20/255, ε = 40/255',
        " step 2 ",
        "λ before",
        "same sign: δ of an image in both roles",
        "4+6 learned λ",
        "this recipe's",
    ):
        assert text in unwrapped(done.stdout)
    assert " step 3 " not in done.stdout
    tables = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(tables) > 30
    assert max(map(len, tables)) <= 80


def test_the_tables_have_the_figures_of_the_document_each_in_its_place(tiny, watch):
    found = probe(tiny(*SMALL, OURS), None, None, torch.device("cpu"), watch)
    path, ratios, shares, standings = ([[cell.value for cell in row] for row in one.rows] for one in grids(found))

    def spread(one):
        return [f"{value:.4f}" for value in (one.mean, *one.quantiles)]

    look = found.look
    assert [row[1:7] for row in path] == [*(spread(place.loss) for place in look.path), spread(look.reached)]
    wanted = (look.ratio_before, look.ratio_after, look.ratio_moved, look.label_shift)
    assert [row[1:7] for row in ratios] == [spread(one) for one in wanted]
    wanted = (look.at_epsilon, look.at_image_bound, look.self_pairs, look.signs_in_a_pair, look.signs_of_an_image)
    expected = [[f"{100 * one.value:.1f} %", f"{one.count:,} of {one.n:,}"] for one in wanted]
    assert [row[1:] for row in shares] == expected
    assert [row[1:4] for row in standings] == [
        [f"{value:.4f}" for value in (one.path[0], one.path[-1], one.reached.mean)] for one in found.standings
    ]
    for one, row in zip(found.standings, grids(found)[3].rows, strict=True):
        for name, cell in zip(BASELINES, row[4:], strict=True):
            if paired := one.against.get(name):
                assert cell.value == f"{paired.mean:+.3f}".replace("-", "−")
                assert cell.notes == (f"± {paired.high - paired.mean:.3f}", f"> 0: {100 * paired.larger.value:.1f} %")
            else:
                assert cell.value == "–"


@pytest.mark.parametrize(("more", "told"), [([], [False, False]), (["loss.trades_beta=6"], [True, True])])
def test_of_trades_it_is_said_what_the_figures_are_not_of(tiny, watch, more, told):
    found = probe(tiny(*SMALL, *more), None, None, torch.device("cpu"), watch)
    captions = [" ".join(one.captions) for one in grids(found)]
    assert ["(TRADES trains on another loss)" in captions[0], "own combination is not" in captions[3]] == told


def test_the_same_command_prints_the_same_document_and_another_seed_another():
    first = document("digits")
    assert document("digits") == first
    assert document("digits", "--seed", 1)["path"] != first["path"]
    assert (len(first["path"]), first["batch_size"], first["weights"]) == (3, 12, None)
    assert [one["name"] for one in first["algorithms"] if one["own"]] == ["4+6 learned λ"]


def test_a_checkpoint_is_looked_at_as_it_was_trained(run_directory):
    found = document("digits", run_directory)
    assert found["network"] == "checkpoint, last, epoch 3"
    assert found["weights"] == checkpoint.load(run_directory).weights
    assert found["path"] != document("digits")["path"]
    assert document("digits", run_directory / "model.safetensors") == found


def test_other_images_than_those_of_the_training_are_said(run_directory):
    done = advmix("probe", "digits", run_directory, *QUICK, "--set", "data.train_limit=50")
    assert done.exit_code == 0
    assert done.stderr == "note: the recipe's train images are not those that the checkpoint was trained with\n"


def test_without_a_maximizer_the_others_are_compared_all_the_same(tmp_path):
    words = [word for word in QUICK if word != "maximizer.ascent.steps=2"][:-1]
    done = advmix("probe", "digits", *NONE, *words, "--figures", tmp_path / "drawn")
    assert done.exit_code == 0, done.output
    assert 'maximizer "none": nothing is attacked, and nothing is mixed' in unwrapped(done.stdout)
    assert "the recipe has no ascent: five steps of ε/2 for all" in unwrapped(done.stdout)
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["loss-path.png", "loss-path.svg"]


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [
        ([], ["loss-path", "mixing-ratio", "pairs"]),
        (
            ["--set", 'maximizer={kind="mix-then-attack", ascent={steps=1, step_size=0.1}}'],
            ["loss-path", "pairs"],  # λ stays where it is
        ),
    ],
)
def test_figures_are_whole_files_the_same_every_time(tmp_path, settings, drawn):
    title = ["--set", 'title="a $\\\\frac$ b"']
    for place in ("one", "two"):
        done = advmix("probe", "digits", *QUICK, *settings, *title, "--figures", tmp_path / place)
        assert done.exit_code == 0, done.output
    names = [f"{name}.{form}" for name in drawn for form in ("png", "svg")]
    assert done.stderr.splitlines() == [f"figure: {tmp_path / 'two' / name}" for name in names]
    for name in names:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        if name.endswith("png"):
            assert content[:8] == b"\x89PNG\r\n\x1a\n"
            assert content[-8:-4] == b"IEND"
            width, height = struct.unpack(">II", content[16:24])
            assert 600 < width < 3000
            assert 600 < height < 3000
        else:
            assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"


def test_nothing_is_drawn_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document("digits")
    assert not list(tmp_path.glob("*.*"))


def refused(words, code=2):
    done = advmix("probe", *words)
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    assert "Traceback" not in done.stderr
    *_, last = done.stderr.splitlines()  # images of a folder are said to be decoded
    assert last.startswith("error: ")
    return last.removeprefix("error: ")


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["digit"], "no shipped recipe is called 'digit'; did you mean 'digits'?"),
        (["table1"], "no shipped recipe is called 'table1': it is a table"),
        (["digits", "nothing"], "nothing: no such file or directory"),
        (["digits", "--device", "tpu"], "--device tpu: not a device"),
        (["digits", "--set", "seed"], "--set seed: write KEY=VALUE"),
        (["digits", "--batch", "1351"], "--batch 1351: there are only 1,350 training images"),
        (["digits", "--figures", "file"], "--figures file: not a directory"),
    ],
)
def test_bad_input_is_exit_2_and_one_message(tmp_path, monkeypatch, words, start):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert refused(words).startswith(start)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["model.width=4"],
            "its model: kind = preact-resnet, depth = 10, width = 2; the recipe's: kind = preact-resnet, depth",
        ),
        (
            ['model={kind="wide-resnet", depth=10, width=1}'],
            "; the recipe's: kind = wide-resnet, depth = 10, width = 1",
        ),
        (
            ['data={source="folder", root="DIR", channels=1}'],
            "its image shape: (1, 8, 8); the recipe's: (1, 9, 9)",
        ),
        (
            ['data={source="folder", root="DIR", channels=1, size=8}'],
            "its classes: 10, 0, 1, 2, 3, 4, …; the recipe's: 2, a, b",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(run_directory, tmp_path, settings, said):
    from PIL import Image

    for part in ("train", "test"):
        for number, name in enumerate(("a", "b") * 20):
            place = tmp_path / part / name
            place.mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 9), number).save(place / f"{number}.png")
    edits = [word for one in settings for word in ("--set", one.replace("DIR", str(tmp_path)))]
    words = ["digits", run_directory, "--device", "cpu", "--set", "model.width=2", *edits, "--set", "evaluators=[]"]
    assert said in refused(words)


def test_weights_that_are_not_finite_are_refused(run_directory, tmp_path):
    saved = checkpoint.load(run_directory)
    name = next(iter(saved.state))
    state = {**saved.state, name: torch.full_like(saved.state[name], torch.nan)}
    replace(saved, state=state).save(tmp_path / "broken.safetensors")
    said = refused(["digits", tmp_path / "broken.safetensors", *QUICK], code=1)
    assert said == f"the network's {name} holds non-finite numbers; there is nothing to measure"


def test_out_of_memory_it_says_how_many_images_there_were(tiny, watch, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("advmix_cli.probing.probe.climb", exhausted)
    for size, images in ((32, 32), (500, 128)):
        with pytest.raises(MemoryExhaustedError, match=f"out of memory on cpu with a batch of {images} images: take"):
            probe(tiny(f"schedule.batch_size={size}"), None, None, torch.device("cpu"), watch)


def test_of_more_than_five_classes_some_are_left_out():
    assert [_names(tuple(names)) for names in ("abcde", "abcdef")] == ["5, a, b, c, d, e", "6, a, b, c, d, e, …"]
