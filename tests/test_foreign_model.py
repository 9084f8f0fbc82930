"""Networks of others: a factory's module, its weights and its images, on the road of our own."""

import errno
import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import resnet18
from typer.testing import CliRunner

from advmix_cli import attacked, build, factories, foreign_model, run
from advmix_cli.checkpoint import load, read_tensors
from advmix_cli.cli import app
from advmix_cli.data import sources
from advmix_cli.data.images import to_unit
from advmix_cli.errors import ForeignModelError
from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.notebook import Blank
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.subject import Subject
from advmix_cli.measure.evaluate import evaluate
from advmix_cli.networks.normalize import on_pixels
from advmix_cli.recipe.measurement import measurement
from advmix_cli.tensors import digest

CPU = torch.device("cpu")
FAST = 'evaluators=[{kind="pristine"}, {kind="pgd", steps=2, step_size="4/255"}]'


def advmix(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


@pytest.fixture
def weights(own, tmp_path):
    """Of the network in that file, which has learnt the digits."""
    raw = sources.digits()
    network = factories.make(f"{own}:make", {}).module
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(to_unit(raw.train.pixels) * 2 - 1), raw.train.labels).backward()
        optimizer.step()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_weights_that_are_not_finite_are_named_before_anything_is_measured(own, weights, tmp_path):
    state = read_tensors(weights)[1]
    state["outer.bias"][3] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    found = advmix("eval", tmp_path / "nan.safetensors", "--model", f"{own}:make", "--data", "digits", "--set", FAST)
    assert (found.exit_code, found.stdout) == (2, "")
    said = f"error: {own}:make: the network's outer.bias holds non-finite numbers; there is nothing to measure\n"
    assert found.stderr.endswith(said)


# ---- measured ------------------------------------------------------------------------------------------------------


def test_a_module_in_a_file_of_ones_own_is_measured(own, weights):
    words = ["eval", weights, "--model", f"{own}:make", "--data", "digits", "--input-range", "-1,1", "--set", FAST]
    found = advmix(*words, "--json")
    assert found.exit_code == 0, found.stderr
    document = json.loads(found.stdout)
    network = factories.make(f"{own}:make", {}).module
    factories.load(network, read_tensors(weights)[1], "")
    images = sources.digits().test
    right = network(to_unit(images.pixels) * 2 - 1).argmax(dim=1) == images.labels
    pgd = Pgd(8 / 255, 4 / 255, 2, 1, "uniform", "cross-entropy", 0, 500)
    subject = Subject.plain(on_pixels(network, (-1.0, 1.0), None))
    withstood = pgd(subject, images, lambda _done, _note: None, Blank()).robust
    assert [(one["name"], one["n"], one["correct"]) for one in document["outcomes"]] == [
        ("pristine", 297, int(right.sum())),
        ("PGD2", 297, int(withstood.sum())),
    ]
    assert 200 < withstood.sum() < right.sum()
    assert document["suspicions"] == []
    assert document["measurement"]["model"] == {"factory": f"{own}:make", "args": {}, "input_range": [-1.0, 1.0]}
    assert document["images"]["test"] == images.fingerprint()
    shown = advmix(*words, "--limit", 10, "--evaluator", "pristine").stdout
    words = " ".join(shown.split())
    assert f"weights {document['weights'][:16]} of" in words
    assert "input range -1 to 1" in words
    assert f"images: digits test {images.fingerprint()[:16]}" in words


def test_the_wrong_convention_is_suspicious_and_the_number_says_so(own, weights):
    words = ["eval", weights, "--model", f"{own}:make", "--data", "digits", "--evaluator", "pristine", "--limit", 50]
    found = advmix(*words, "--input-range=-200,0")
    assert found.exit_code == 0
    told = "of the first 200 images are right, and"
    assert "--input-range=-1,1 alone: is that what it takes?" in found.stderr
    assert told in found.stderr
    assert "SUSPICIOUS: " in found.stdout
    assert told in " ".join(found.stdout.split())


def test_a_network_that_takes_normalised_pixels_is_given_them(own, weights):
    """(x - 0.5) / 0.5 is x from -1 to 1, which is what it takes."""
    words = ["eval", weights, "--model", f"{own}:make", "--data", "digits", "--evaluator", "pristine", "--json"]
    scaled, normalised, neither = (
        json.loads(advmix(*words, *options).stdout)["outcomes"][0]["correct"]
        for options in (["--input-range=-1,1"], ["--normalize", "0.5/0.5"], [])
    )
    assert scaled == normalised > neither


@pytest.fixture
def colours(tmp_path):
    """A folder of 32x32 colour images of ten classes."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 1), ("test", 2)):
        for name in range(10):
            directory = tmp_path / "images" / part / str(name)
            directory.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(directory / f"{number}.png")
    return tmp_path / "images"


STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
FLAG = "0.4914,0.4822,0.4465/0.2471,0.2435,0.2616"


def test_a_resnet_of_torchvision_is_measured(colours, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = resnet18(num_classes=10)
    # As DataParallel names them.
    save_file({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "net.safetensors")
    found = advmix(
        "eval", tmp_path / "net.safetensors", "--model", "torchvision.models:resnet18",
        "--model-args", "{num_classes=10}", "--data", "folder", "--set", f'data.root="{colours}"', "--set", FAST,
        "--normalize", FLAG, "--json",
    )  # fmt: skip
    assert found.exit_code == 0, found.stderr
    document = json.loads(found.stdout)
    pixels, labels = _folder(colours)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in STATISTICS)
    right = network.eval()((pixels - mean) / std).argmax(dim=1) == labels
    assert document["outcomes"][0]["correct"] == int(right.sum())
    assert document["outcomes"][1]["n"] == 20
    assert document["measurement"]["model"]["args"] == {"num_classes": 10}
    (suspicion,) = document["suspicions"]
    assert suspicion.startswith("not shown to be better than chance: ")


def _folder(root):
    paths = sorted(root.glob("test/*/*.png"))
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in paths])
    return pixels.float() / 255, torch.tensor([int(path.parent.name) for path in paths])


def test_a_network_of_timm_is_measured(colours):
    pytest.importorskip("timm")
    found = advmix(
        "eval", "--model", "timm:create_model", "--model-args", '{model_name="resnet10t", num_classes=10}',
        "--data", "folder", "--set", f'data.root="{colours}"', "--set", FAST, "--json",
    )  # fmt: skip
    assert found.exit_code == 0, found.stderr
    document = json.loads(found.stdout)
    assert document["checkpoint"] is None
    assert [one["n"] for one in document["outcomes"]] == [20, 20]


def test_a_checkpoint_of_our_own_is_the_same_by_either_road(tiny, tmp_path, watch):
    recipe = tiny("schedule.epochs=1", 'validation.report="last"', "engine.channels_last=false")
    results = run.execute(recipe, tmp_path / "run", CPU, watch)
    (tmp_path / "net.py").write_text(
        "from advmix_cli.networks.normalize import Normalize\n"
        "from advmix_cli.networks.preact_resnet import preact_resnet\n"
        "def make(**sizes):\n"
        "    return preact_resnet(Normalize([0.0], [1.0]), channels=1, classes=10, **sizes)\n"
    )
    (tmp_path / "recipe.toml").write_text((tmp_path / "run" / "recipe.toml").read_text())
    found = advmix(
        "eval", tmp_path / "run", "--model", f"{tmp_path}/net.py:make", "--model-args", "{depth=10, width=4}",
        "--recipe", tmp_path / "recipe.toml", "--json",
    )  # fmt: skip
    assert found.exit_code == 0, found.stderr
    document = json.loads(found.stdout)
    outcomes = [(one["name"], one["correct"]) for one in document["outcomes"]]
    assert outcomes == [(one.name, one.correct) for one in results.measured[0].outcomes]
    assert document["weights"] == load(tmp_path / "run").weights


def test_a_scale_and_a_normalisation_are_what_they_say():
    x = torch.rand(2, 3, 4, 4)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in STATISTICS)
    assert torch.equal(on_pixels(nn.Identity(), (0.0, 1.0), None)(x), x)
    assert torch.equal(on_pixels(nn.Identity(), (0.0, 1.0), STATISTICS)(x), (x - mean) / std)
    assert torch.equal(on_pixels(nn.Identity(), (-1.0, 1.0), None)(x), 2 * x - 1)
    assert torch.equal(on_pixels(nn.Identity(), (0.0, 255.0), ((100.0,), (50.0,)))(x), (255 * x - 100) / 50)


def test_half_a_precision_is_said_and_measured_in_whole(own, weights, tmp_path):
    save_file({name: value.half() for name, value in read_tensors(weights)[1].items()}, tmp_path / "half.safetensors")
    words = ["--model", f"{own}:make", "--data", "digits", "--input-range=-1,1", "--evaluator", "pristine", "--json"]
    found = advmix("eval", tmp_path / "half.safetensors", *words)
    assert found.exit_code == 0
    assert json.loads(found.stdout)["suspicions"] == ["its parameters are float16; it is measured in float32"]
    (own.parent / "odd.py").write_text("import my_net\ndef make():\n    return my_net.make().half()\n")
    found = advmix("eval", weights, *words[:1], own.parent / "odd.py:make", *words[2:])
    sys.modules.pop("my_net")
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["suspicions"] == ["its parameters are float16; it is measured in float32"]


def test_code_that_makes_all_numbers_double_makes_its_own(own, weights):
    own.write_text(f"import torch\ntorch.set_default_dtype(torch.float64)\n{own.read_text()}")
    words = ["--data", "digits", "--input-range=-1,1", "--normalize", "0.0/1.0", "--set", FAST, "--limit", 5, "--json"]
    found = advmix("eval", weights, "--model", f"{own}:make", *words)
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["suspicions"] == ["its parameters are float64; it is measured in float32"]
    assert torch.get_default_dtype() == torch.float32


RANDOM = """
import torch
from torch import nn
from torch.nn import functional as F

class Random(nn.Linear):
    def forward(self, x):
        return super().forward(F.dropout(x.flatten(1)))

class Blind(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)).detach()

def random():
    return Random(64, 10)

def blind():
    return Blind(64, 10)
"""
PRISTINE, PGD, RAND, STANDARD = (
    '{kind="pristine"}', '{kind="pgd", steps=1, step_size="1/255"}', '{kind="autoattack", version="rand"}',
    '{kind="autoattack", version="standard"}',
)  # fmt: skip


@pytest.mark.parametrize(
    ("factory", "evaluators", "fit"),
    [
        ("random", [PRISTINE], True),
        ("random", [PRISTINE, RAND], True),
        ("random", [RAND, PGD], False),
        ("random", [STANDARD], False),
        ("blind", [PRISTINE], True),
        ("blind", [PRISTINE, PGD], False),
    ],
)
def test_what_is_asked_of_a_network_depends_on_who_measures_it(tmp_path, watch, factory, evaluators, fit):
    (tmp_path / "odd.py").write_text(RANDOM)
    settings = [f"evaluators=[{', '.join(evaluators)}]"]
    chosen = measurement(f"{tmp_path}/odd.py:{factory}", None, None, None, "digits", None, settings)
    if fit:
        said = foreign_model.prepared(chosen, None, CPU, watch).suspicions
        assert any("it is random" in one for one in said) == (factory == "random")
    else:
        with pytest.raises(ForeignModelError, match="random" if factory == "random" else "attacks are blind"):
            foreign_model.prepared(chosen, None, CPU, watch)


# ---- refused -------------------------------------------------------------------------------------------------------

MODEL = ["--model", "torchvision.models:resnet18"]
FLAGS = {
    ("--data", "digits"): "--data is for a network of others: it has no meaning without --model",
    **{
        (flag, value): f"{flag} is for a network of others: it has no meaning without --model"
        for flag, value in (
            ("--normalize", "0/1"), ("--model-args", "{}"), ("--input-range", "0,1"), ("--recipe", "digits"),
        )
    },
    (): "advmix eval wants a CHECKPOINT, or --model",
    (*MODEL,): "--model wants --data NAME, or --recipe RECIPE for its data, threat and evaluators",
    (*MODEL, "--data", "digit"): '--data: data.source = "digit" is not one of digits, cifar10, cifar100, '
    'fashion-mnist, '
    "folder; did you mean 'digits'?",
    ("--model", "resnet18", "--data", "digits"): "--model: model.factory: write package.module:name, or "
    "path/to/file.py:name",
    (*MODEL, "--data", "digits", "--input-range", "1,0"): "--input-range: model.input_range: must ascend: what black "
    "is, "
    "then what white is",
    (*MODEL, "--data", "digits", "--input-range", "255"): "--input-range: '255' is not two numbers; write LOW,HIGH",
    (*MODEL, "--data", "digits", "--normalize", "0.5"): "--normalize: '0.5' has no '/': write 0.5/0.25, or "
    "0.5,0.5,0.4/0.2,0.2,0.3",
    (*MODEL, "--data", "digits", "--normalize", "a/1"): "--normalize: 'a' is not numbers with commas between them",
    (*MODEL, "--data", "digits", "--normalize", "0,0/1"): "--normalize: model.normalize: 2 means and 1 standard "
    "deviations",
    (*MODEL, "--data", "digits", "--normalize", "0/nan"): "--normalize: model.normalize.std.0 = nan is not a finite "
    "number",
    (*MODEL, "--data", "digits", "--normalize", "0,0/1,1"): "--normalize has 2 channels, and the images have 1",
    (*MODEL, "--data", "digits", "--model-args", "10"): "--model-args: model.args = 10 must be a table",
    (*MODEL, "--data", "digits", "--model-args", "a"): "--model-args: 'a' is not a TOML table; write '{num_classes=10, "
    "name=\"a string\"}'",
    (*MODEL, "--data", "digits", "--set", "optimizer.lr=1"): "--set optimizer.lr=1: unknown key 'optimizer' in the "
    "file "
    "(known: model, data, threat, engine, evaluators)",
}  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), FLAGS.items(), ids=[" ".join(flags) or "nothing" for flags in FLAGS])
def test_flags_that_are_wrong_are_named_and_nothing_is_measured(flags, message):
    found = advmix("eval", *flags)
    assert (found.exit_code, found.stdout, found.stderr) == (2, "", f"error: {message}\n")


def test_a_network_that_cannot_be_measured_is_a_file_that_is_wrong(own):
    (own.parent / "odd.py").write_text("from torch import nn\ndef make():\n    return nn.Flatten()\n")
    found = advmix("eval", "--model", own.parent / "odd.py:make", "--data", "digits")
    assert found.exit_code == 2
    assert found.stderr == (
        f"error: {own.parent}/odd.py:make: it returns (16, 64) for 16 images, and for the data's 10 classes (16, 10) "
        f"is "
        "wanted; many factories take num_classes (--model-args)\n"
    )


# ---- what is measured, and by whom ---------------------------------------------------------------------------------


def test_by_default_the_field_judges_at_eight():
    chosen = measurement("a:b", None, None, None, "cifar10", None, ["evaluators.2.limit=5"])
    assert chosen.threat.epsilon == 8 / 255
    assert [one.name for one in chosen.evaluators] == ["pristine", "PGD20", "AA standard"]
    assert chosen.evaluators[2].limit == 5


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        (["threat.epsilon=0.4"], 0.1),
        (["threat.epsilon=0.4", "evaluators.0.limit=5", "evaluators.1.steps=40"], 0.1),
        (["threat.epsilon=0.4", "evaluators.1.step_size=0.03"], 0.03),
        (["threat.epsilon=0.0"], 1 / 255),
        (["evaluators.1.epsilon=0.2"], 0.05),
        ([], 2 / 255),
    ],
)
def test_the_default_steps_follow_epsilon(settings, step):
    own = 'evaluators.2={kind="pgd", steps=5, step_size=0.01}'
    chosen = measurement("a:b", None, None, None, "cifar10", None, [*settings, own])
    assert (chosen.evaluators[1].step_size, chosen.evaluators[2].step_size) == (step, 0.01)


def test_a_recipe_judges_as_it_does_its_own():
    chosen = measurement("a:b", None, None, None, None, "digits", ["evaluators.1.steps=20"])
    assert chosen.data.source == "digits"
    assert chosen.threat.epsilon == 40 / 255
    assert [one.name for one in chosen.evaluators] == ["pristine", "PGD20", "AA cheap-2020"]
    assert (chosen.engine.threads, chosen.engine.channels_last) == (1, False)
    edited = measurement("a:b", None, None, None, "cifar10", "digits", ["threat.epsilon=0.1"])
    assert (edited.data.source, edited.threat.epsilon) == ("cifar10", 0.1)


@pytest.mark.parametrize(("asked", "found"), [("off", "off"), ("auto", "auto"), ("step", "auto")])
def test_what_a_recipe_does_not_compile_is_measured_uncompiled(tiny, tmp_path, asked, found):
    (tmp_path / "r.toml").write_text(tomli_w.dumps(tiny(f'engine.compile="{asked}"').resolved()))
    assert measurement("a:b", None, None, None, None, str(tmp_path / "r.toml"), []).engine.compile == found


def test_a_network_of_others_is_shown_with_all_that_it_is_made_and_fed_by():
    chosen = measurement("a:b/c.py:d", '{n=10, name="x"}', "-1,1", "0.5,0.4/0.25,0.2", "cifar10", None, [])
    assert str(chosen.model) == "a:b/c.py:d, n=10, name='x', input range -1 to 1, normalised by 0.5,0.4/0.25,0.2"


def test_findings_are_those_of_the_very_same_code(own, watch):
    def known():
        chosen = measurement(f"{own}:make", None, None, None, "digits", None, [FAST])
        return foreign_model.prepared(chosen, None, CPU, watch).known()

    first, code = known(), own.read_text()
    assert known() == first
    own.write_text(code.replace(".relu()", ".relu() * 1.5"))
    assert known() != first
    own.write_text(code + "\n")
    assert known() != first
    own.write_text(code)
    assert known() == first
    (own.parent / "beside.py").write_text("WIDTH = 17\n")
    sys.modules.pop("beside")
    os.utime(own.parent / "beside.py", (0, 0))
    assert known() != first


def test_an_evaluation_that_was_interrupted_goes_on(own, weights, monkeypatch, tmp_path):
    words = ["eval", weights, "--model", f"{own}:make", "--data", "digits", "--input-range=-1,1", "--limit", 6]
    words += ["--set", 'evaluators=[{kind="pgd", steps=1, step_size="1/255", batch_size=1}]', "--json"]
    expected = json.loads(advmix(*words).stdout)
    looks, true = [], Pgd.attack

    def attack(*arguments, until):
        looks.append(1)
        if len(looks) > until:
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(Pgd, "attack", lambda *arguments: attack(*arguments, until=4))
    assert advmix(*words).exit_code == 130
    looks.clear()
    monkeypatch.setattr(Pgd, "attack", lambda *arguments: attack(*arguments, until=99))
    found = json.loads(advmix(*words).stdout)
    assert 0 < len(looks) <= 2
    assert found["outcomes"][0]["correct"] == expected["outcomes"][0]["correct"]
    assert not list((tmp_path / "cache" / "advmix" / "findings").iterdir())


# ---- compiled ------------------------------------------------------------------------------------------------------


class Perceptron(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.seen = forward

    def forward(self, x):
        return self.seen(self.linear(x.flatten(1)))


def measure_with(module, watch, monkeypatch):
    monkeypatch.setattr(attacked, "WORTH_COMPILING", 1)
    chosen = measurement("a:b", None, "-1,1", None, "digits", None, [FAST, "data.test_limit=20"])
    images = foreign_model.build.dataset(chosen, CPU, watch.say)
    network = foreign_model.build.foreign_network(chosen, module, CPU)
    with measured(network):
        return [one.outcome.correct for one in evaluate(chosen.evaluators, chosen, network, images, watch)]


@pytest.mark.usefixtures("traced")
def test_attacks_look_at_a_compiled_network_of_others(watch, said, monkeypatch):
    measure_with(Perceptron(lambda logits: 2 * logits), watch, monkeypatch)
    assert "attacks look at the compiled network" in said.getvalue()


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda logits: logits * (1 if logits.sum().item() > 0 else 2), "counting what it costs failed: "),
        (lambda logits: logits * torch.get_num_threads(), "compiling failed: "),
    ],
    ids=["counting", "compiling"],
)
@pytest.mark.usefixtures("traced")
def test_what_cannot_be_compiled_is_measured_eagerly_and_said(watch, monkeypatch, caplog, forward, reason):
    found = measure_with(Perceptron(forward), watch, monkeypatch)
    assert len(found) == 2
    (told,) = [record.message for record in caplog.records if record.name == "advmix"]
    assert told.startswith(f"the evaluation is eager: {reason}")


# ---- what else `advmix eval` does --------------------------------------------------------------------------------


def test_the_verdicts_of_a_network_of_others_are_kept_and_compared(own, weights, tmp_path):
    words = ["eval", weights, "--model", f"{own}:make", "--data", "digits", "--input-range", "-1,1", "--limit", "20"]
    assert advmix(*words, "--set", FAST, "--save", tmp_path / "a", "--save-adversarial").exit_code == 0
    kept = {path.name.split(" ")[0]: verdict_files.load(path) for path in (tmp_path / "a").iterdir()}
    assert kept.keys() == {"pristine", "PGD2"}
    assert kept["PGD2"].found.verdicts.images.shape == (20, 1, 8, 8)
    assert kept["PGD2"].weights == digest(load_file(weights))
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), str(tmp_path / "a"), "--json"])
    assert done.exit_code == 0, done.stderr
    assert [one["gained"] for one in json.loads(done.stdout)["evaluators"]] == [0, 0]
    words = ["eval", "--model", f"{own}:make", "--data", "digits", "--save-adversarial"]
    refused = advmix(*words)
    assert refused.exit_code == 2
    said = " ".join(refused.stderr.split())
    assert "--save-adversarial without a file of weights wants a directory: --save DIR" in said


def test_what_is_kept_of_one_network_is_not_written_over_by_the_same_weights_taken_otherwise(own, weights, tmp_path):
    words = ["eval", weights, "--model", f"{own}:make", "--data", "digits", "--limit", 2, "--evaluator", "pristine"]
    for span in ("-1,1", "-200,0"):
        assert advmix(*words, "--save-adversarial", "--input-range", span).exit_code == 0
    kept = [verdict_files.load(path) for path in (tmp_path / "adversarial").iterdir()]
    assert len(kept) == len({one.network for one in kept}) == 2


def test_what_is_measured_on_other_images_is_looked_at_on_those(own, weights, watch):
    measured_on = 'evaluators=[{kind="pristine", split="train", limit=2}]'
    words = ["eval", weights, "--model", f"{own}:make", "--data", "digits", "--set", measured_on]
    shown = " ".join(advmix(*words, "--input-range=-200,0").stdout.split())
    chosen = measurement(f"{own}:make", None, None, None, "digits", None, [measured_on])
    images = build.dataset(chosen, CPU, watch.say)
    network = factories.make(f"{own}:make", {}).module
    factories.load(network, read_tensors(weights)[1], "")
    first = images.train.first(200)
    right = int((network(to_unit(first.pixels) * 2 - 1).argmax(dim=1) == first.labels).sum())
    assert f"of the first 200 images are right, and {right} with --input-range=-1,1 alone" in shown
    assert f"images: digits train {images.train.fingerprint()[:16]}" in shown


def test_a_network_of_others_is_diagnosed(own, weights):
    words = ["eval", weights, "--model", f"{own}:make", "--data", "digits", "--input-range", "-1,1", "--diagnose"]
    found = json.loads(advmix(*words, "--limit", "6", "--json").stdout)
    assert found["n"] == 6
    assert len(found["checks"]) == 10
    without = json.loads(advmix(*words, "--limit", "2", "--set", "evaluators=[]", "--json").stdout)
    assert [one["name"] for one in without["checks"]] == [one["name"] for one in found["checks"]]
    refused = advmix(*words, "--transfer", "x.safetensors")
    assert refused.exit_code == 2
    assert "--transfer has no meaning with --model" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    "body",
    ["raise SystemExit(0)", "raise ValueError('\\x1b[2Jno')", "raise GeneratorExit", "return x.to_sparse()"],
)
def test_whatever_its_code_raises_is_one_message_and_no_success(tmp_path, body):
    code = f"""
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        {body}


make = Net
"""
    (tmp_path / "odd.py").write_text(code)
    found = advmix("eval", "--model", f"{tmp_path}/odd.py:make", "--data", "digits", "--set", FAST)
    assert found.exit_code in (1, 2)
    assert "odd.py:make" in "".join(found.stderr.split())
    assert "\x1b" not in found.stderr
    assert "Traceback" not in found.stderr
    assert "SystemExit: SystemExit" not in found.stderr
    assert found.stdout == ""


def test_a_disk_that_is_full_is_not_its_code_s_fault(own, weights, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "kept" / "x"))

    monkeypatch.setattr(verdict_files.Record, "save", full)
    words = ["--model", f"{own}:make", "--data", "digits", "--input-range", "-1,1", "--save", tmp_path / "kept"]
    found = advmix("eval", weights, *words, "--evaluator", "pristine")
    assert found.exit_code == 1
    assert found.stderr.endswith(f"error: {tmp_path}/kept/x: No space left on device\n")


def test_what_attacks_is_asked_of_a_network_that_is_diagnosed_whoever_judges(tmp_path):
    (tmp_path / "odd.py").write_text(RANDOM)
    words = ["--data", "digits", "--set", f"evaluators=[{PRISTINE}]", "--diagnose"]
    found = advmix("eval", "--model", f"{tmp_path}/odd.py:random", *words)
    assert found.exit_code == 2
    assert "it is random" in found.stderr


def test_what_the_field_s_networks_take_is_tried_with_its_flags(tiny):
    data = build.dataset(tiny(), CPU, print)
    common = {
        "neither --input-range nor --normalize": ((0, 1), None),
        "--input-range=-1,1 alone": ((-1, 1), None),
        "--input-range 0,255 alone": ((0, 255), None),
    }
    assert foreign_model._conventions(data._replace(mean=[0.30541], std=[0.2])) == {
        **common, "--normalize 0.3054/0.2 alone": ((0, 1), ((0.3054,), (0.2,))),
    }  # fmt: skip
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    assert foreign_model._conventions(data._replace(mean=[*mean], std=[*std])) == {
        **common,
        "--normalize 0.1,0.2,0.3/0.4,0.5,0.6 alone": ((0, 1), (mean, std)),
        "--normalize 0.485,0.456,0.406/0.229,0.224,0.225 alone": (
            (0, 1), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ),
    }  # fmt: skip


def test_what_is_said_of_a_network_tells_it_from_others_wherever_it_is_said(tiny, tmp_path, monkeypatch):
    one = foreign_model.Foreign(nn.Identity(), build.dataset(tiny(), CPU, print), "weights", (), "computes")

    def described(*said):
        return one.described(measurement(*said, None, "digits", None, [FAST]))

    monkeypatch.chdir(tmp_path)
    own = described("net.py:make", None, None)
    assert described(f"{tmp_path}/net.py:make", None, None) == own
    others = [
        described("other.py:make", None, None), described("net.py:other", None, None),
        described("net.py:make", "{width=1}", None), described("net.py:make", None, "-1,1"),
    ]  # fmt: skip
    assert len({own, *others}) == 5


def test_a_network_is_known_by_its_weights_and_by_what_it_computes(tiny):
    images = build.dataset(tiny(), CPU, print)
    one = foreign_model.Foreign(nn.Identity(), images, "weights", (), "computes")
    assert one.known() == replace(one, suspicions=("said",)).known()
    others = [replace(one, computes="something else"), replace(one, weights="others")]
    assert len({other.known().weights for other in (one, *others)}) == 3


def test_a_module_whose_shapes_are_not_known_yet_is_refused(own):
    own.write_text("from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))\n")
    done = advmix("eval", "--model", f"{own}:make", "--data", "digits")
    assert (done.exit_code, done.stdout) == (2, "")
    assert " ".join(done.stderr.split()) == (
        f"error: {own}:make: parameters without a shape before the first image (1.weight, 1.bias): let the factory "
        "show it one"
    )
