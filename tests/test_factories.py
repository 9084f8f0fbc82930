"""What makes a network of others: code that is found, imported, called, and known by what it is; weights that fit."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from advmix_cli import factories
from advmix_cli.errors import CheckpointError, ForeignModelError

FACTORIES = {
    "{file}:mak": "{file} has no 'mak'; did you mean 'make'?",
    "{file}:broken": "{file}:broken(): ValueError: no such size",
    "{file}:nothing": "{file}:nothing makes None, and a torch.nn.Module is wanted",
    "{file}:number": "{file}:number is of type int, and nothing that makes a module",
    "nowhere/net.py:make": "nowhere/net.py: no such file",
    "nowhere/net:make": "nowhere/net: no such file",
    "torchvisoin.models:resnet18": "there is no module 'torchvisoin': it is neither installed, nor on PYTHONPATH, "
    "nor in this directory",
    "torchvision.modles:resnet18": "there is no module 'torchvision.modles': it is neither installed, nor on "
    "PYTHONPATH, nor in this directory",
    "torchvision.models:resnet1": "torchvision.models has no 'resnet1'; did you mean 'resnet18'?",
}  # fmt: skip


@pytest.mark.parametrize(("factory", "message"), FACTORIES.items(), ids=FACTORIES)
def test_a_factory_that_makes_nothing_is_named(own, factory, message):
    with pytest.raises(ForeignModelError) as error:
        factories.make(factory.format(file=own), {})
    assert str(error.value) == message.format(file=own)


def test_a_factory_gets_its_arguments_or_says_which_it_has_not(own):
    assert factories.make(f"{own}:make", {"width": 3}).module.inner.out_features == 3
    with pytest.raises(
        ForeignModelError, match=r"my_net.py:make\(wdith=3\): TypeError: .*unexpected keyword .*'wdith'$"
    ):
        factories.make(f"{own}:make", {"wdith": 3})
    assert factories.make(f"{own}:ready", {}).module.inner.out_features == 4
    with pytest.raises(ForeignModelError, match="is a module already, and takes no arguments"):
        factories.make(f"{own}:ready", {"width": 3})


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_there", "ModuleNotFoundError: No module named 'nothing_there'"),
        ("raise SystemExit", "SystemExit"),
        ("def make(:", "SyntaxError: invalid syntax (net.py, line 1)"),
    ],
)
def test_code_that_cannot_be_imported_says_why(tmp_path, monkeypatch, code, message):
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(ForeignModelError) as error:
        factories.make(f"{tmp_path}/net.py:make", {})
    assert str(error.value) == f"{tmp_path}/net.py: {message}"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_net.py").write_text(code.replace("net.py", "some_net.py"))
    with pytest.raises(ForeignModelError) as error:
        factories.make("some_net:make", {})
    assert str(error.value) == f"importing some_net: {message.replace('net.py', 'some_net.py')}"


def test_code_in_this_directory_is_found_and_leaves_the_path_as_it_was(own, monkeypatch):
    monkeypatch.chdir(own.parent)
    before = list(sys.path)
    first, second = (factories.make("my_net:make", {}).module for _ in range(2))
    assert sys.path == before
    assert torch.equal(first.inner.weight, second.inner.weight)
    sys.modules.pop("my_net")


def test_what_is_random_in_a_factory_s_code_is_so_from_one_seed_and_leaves_torch_s_alone(own):
    made = []
    with torch.random.fork_rng():
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            made.append(factories.make(f"{own}:ready", {}).module)
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(made[0].inner.weight, made[1].inner.weight)


def test_what_is_beside_a_factory_comes_before_what_else_has_its_name(own, tmp_path, monkeypatch):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "beside.py").write_text("WIDTH = 5\n")
    monkeypatch.syspath_prepend(tmp_path / "first")
    assert factories.make(f"{own}:make", {}).module.inner.out_features == 16


def test_a_factory_s_file_may_hold_dataclasses(tmp_path):
    code = "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
    (tmp_path / "with_sizes.py").write_text(f"{code}@dataclass\nclass Sizes:\n    width: int\nmake = nn.Flatten\n")
    assert isinstance(factories.make(f"{tmp_path}/with_sizes.py:make", {}).module, nn.Flatten)


def test_names_are_read_without_their_prefix_only_where_all_have_it_and_the_module_s_have_not():
    source, own = (nn.ModuleDict({"module": nn.Linear(2, 3)}) for _ in range(2))
    factories.load(own, source.state_dict(), "w.safetensors")
    assert torch.equal(own["module"].weight, source["module"].weight)
    state = {"module.weight": torch.ones(3, 2), "bias": torch.ones(3)}
    with pytest.raises(CheckpointError, match=r"missing: weight; unexpected: module\.weight$"):
        factories.load(nn.Linear(2, 3), state, "w.safetensors")


def test_weights_fit_whole_or_not_at_all():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {**module.state_dict(), "2.weight": torch.ones(1), "0.bias": torch.ones(4)}
    del state["1.bias"]
    with pytest.raises(CheckpointError) as error:
        factories.load(module, state, "w.safetensors")
    assert str(error.value) == (
        "w.safetensors does not fit the module: missing: 1.bias; unexpected: 2.weight; of another shape: 0.bias (4,) "
        "for (3,)"
    )
    with pytest.raises(CheckpointError, match=r"of another kind of number: 1.num_batches_tracked$"):
        factories.load(module, {**module.state_dict(), "1.num_batches_tracked": torch.tensor(1.0)}, "w.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: 0.bias, 0.weight, 1.bias, .*, and 2 more$"):
        factories.load(module, {}, "w.safetensors")


def test_what_is_imported_beside_a_factory_is_its_code(tmp_path, monkeypatch):
    """What was found before it was mended is not of the same network."""
    (tmp_path / "net.py").write_text("from torch import nn\nimport beside_the_net\nmake = nn.Flatten\n")
    (tmp_path / "beside_the_net.py").write_text("")
    sources = []
    for text in ("", "", "wrong = True\n"):
        (tmp_path / "beside_the_net.py").write_text(text)
        sources.append(factories.make(f"{tmp_path}/net.py:make", {}).source)
    assert sources[0] == sources[1] != sources[2]
    monkeypatch.syspath_prepend(tmp_path)
    sources = [factories.make("net:make", {}).source]
    (tmp_path / "beside_the_net.py").write_text("")
    assert factories.make("net:make", {}).source != sources[0]
    for name in ("net", "beside_the_net"):
        sys.modules.pop(name)


def test_the_code_of_an_installed_network_is_its_package_s_alone(tmp_path, monkeypatch):
    place = tmp_path / "site-packages"
    (place / "a_net" / "models").mkdir(parents=True)
    (place / "a_net" / "__init__.py").write_text("")
    (place / "a_net" / "layers.py").write_text("")
    (place / "a_net" / "models" / "__init__.py").write_text("import a_net.layers\n")
    (place / "single_net.py").write_text("import a_net.models\nfrom torch import nn\nmake = nn.Flatten\n")
    monkeypatch.syspath_prepend(place)
    factories.make("single_net:make", {})
    found = [
        {str(file.relative_to(place)) for file in factories._sources(sys.modules[name])}
        for name in ("a_net.models", "single_net")
    ]
    assert found == [{"a_net/__init__.py", "a_net/layers.py", "a_net/models/__init__.py"}, {"single_net.py"}]
    for name in ("a_net", "a_net.layers", "a_net.models", "single_net"):
        sys.modules.pop(name)


def test_two_files_that_change_places_are_other_code(tmp_path):
    paths = [tmp_path / "one.py", tmp_path / "two.py"]
    digests = []
    for texts in (("a", "b"), ("b", "a")):
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        digests.append(factories._digest_of(set(paths)))
    assert digests[0] != digests[1]


def test_a_module_that_is_not_there_yet_is_not_woken(tmp_path, monkeypatch):
    class Lazy(ModuleType):
        def __getattr__(self, name):
            raise ImportError(name)

    monkeypatch.setitem(sys.modules, "lazy_one", Lazy("lazy_one"))
    (tmp_path / "net.py").write_text("from torch import nn\nmake = nn.Flatten\n")
    assert factories.make(f"{tmp_path}/net.py:make", {}).source
