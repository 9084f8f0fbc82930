"""Shared by the tests: a recipe that trains in a second, a watcher that prints into memory, a trained network."""

import io
import os
import sys
from functools import partial

import pytest
import tomli_w
import torch
from foreign import OWN
from hypothesis import settings as hypothesis_settings
from interrupted import CPU, SMALL, bits
from rich.console import Console

from advmix_cli import build, run
from advmix_cli.networks.preact_resnet import BLOCKS
from advmix_cli.recipe.load import Document, parse_setting
from advmix_cli.recipe.positions import Position
from advmix_cli.report.progress import Lines
from advmix_cli.training.accelerate import forget_compiled

# What a terminal, or a service that runs tests, asks of what is printed.
for name in ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
    os.environ.pop(name, None)
os.environ["TERM"] = "xterm"

# Networks this small are slower on two threads than on one.
torch.set_num_threads(1)

# The same examples every time, and no deadline: the machine may be busy.
hypothesis_settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis_settings.load_profile("repeatable")

TINY = {
    "title": "tiny",
    "data": {"source": "digits", "train_limit": 128, "test_limit": 40},
    "model": {"kind": "preact-resnet", "depth": 10, "width": 4},
    "threat": {"epsilon": "16/255"},
    "maximizer": {"kind": "attack", "ascent": {"steps": 2, "step_size": "8/255"}},
    "optimizer": {"kind": "adam", "lr": 0.01},
    "schedule": {"kind": "steps", "epochs": 2, "batch_size": 64},
    "validation": {"fraction": 0.05, "limit": 30, "steps": 2},
    "evaluators": [{"kind": "pristine"}, {"kind": "pgd", "steps": 2, "step_size": "8/255"}],
}


def pytest_configure(config):
    # torch hides these of its own by not showing them, which is too late where a warning is an error.
    for hidden in ("The .grad attribute of a Tensor", "The CUDA Graph is empty"):
        config.addinivalue_line("filterwarnings", f"ignore:{hidden}")
    config.addinivalue_line("filterwarnings", "ignore:Synchronization debug mode is a prototype")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")


@pytest.fixture(scope="session", autouse=True)
def compiled_code(tmp_path_factory):
    """Compiled code is shared by the tests of a session, whose other directories are each one's own."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("inductor"))


@pytest.fixture(autouse=True)
def own_directories(tmp_path, monkeypatch):
    """No test touches the user's caches and datasets."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))


@pytest.fixture(scope="session")
def tiny():
    """tiny("seed=1", ...): the small recipe, edited as --set edits one."""
    return lambda *settings: Document(TINY, {(): Position("tiny")}).edited([*map(parse_setting, settings)]).recipe()


@pytest.fixture
def shallow(monkeypatch):
    """A PreAct-ResNet-10 of a single block, which compiles in a second."""
    monkeypatch.setitem(BLOCKS, 10, (1,))


@pytest.fixture
def traced(monkeypatch):
    """torch.compile without its code generator: graphs, gradients and mutations as they will be, in seconds."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    forget_compiled()
    yield
    forget_compiled()


@pytest.fixture
def said():
    """What `watch` was told."""
    return io.StringIO()


@pytest.fixture
def watch(said):
    """A watcher that prints into `said`."""
    return Lines(Console(file=said, width=200))


@pytest.fixture(scope="package")
def trained(tiny):
    """(network in eval mode, dataset): digits after a few pristine epochs, more than nine in ten right."""
    settings = [
        "data.train_limit=1200",
        "data.test_limit=297",
        "model.width=8",
        'maximizer={kind="none"}',
        'schedule={kind="one-cycle", epochs=6, batch_size=60}',
    ]
    recipe = tiny(*settings)
    images = build.dataset(recipe, torch.device("cpu"), print)
    network = build.new_network(recipe, images, torch.device("cpu"))
    for _ in build.training(recipe, images, network).run(lambda _: None):
        pass
    return network.eval(), images


@pytest.fixture
def whole(tiny, tmp_path, watch):
    """whole(*settings): (the recipe, the bits of its uninterrupted training)."""

    def train(*settings):
        recipe = tiny(*SMALL, *settings)
        run.execute(recipe, tmp_path / "whole", CPU, watch)
        return recipe, bits(tmp_path / "whole")

    return train


@pytest.fixture
def long(tiny, tmp_path):
    """A recipe that trains for minutes."""
    path = tmp_path / "long.toml"
    path.write_text(tomli_w.dumps(tiny("schedule.epochs=9999", "engine.threads=1").resolved()))
    return path


@pytest.fixture
def own(tmp_path):
    """A file of code outside the package, which imports another one beside it."""
    path = tmp_path / "elsewhere" / "my_net.py"
    path.parent.mkdir()
    path.write_text(OWN)
    (path.parent / "beside.py").write_text("WIDTH = 16\n")
    yield path
    sys.modules.pop("beside", None)
