"""Networks that cannot be measured, or should not be believed at once: each is named, and an honest one is not."""

import random
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from advmix_cli.data.images import Images
from advmix_cli.errors import EvaluationError, ForeignModelError, MemoryExhaustedError
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.suspicions import _between_calls, _Drawn, _of_the_output, of_the_accuracy, suspicions

NAMES = tuple("0123456789")


@pytest.fixture(autouse=True)
def same_noise():
    """What is random here is the same every time: which other suspicion its draws raise is chance."""
    torch.manual_seed(0)


class Odd(nn.Module):
    """A small network, and what is done with it and an image."""

    def __init__(self, forward=lambda network, x: network(x)):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 10)
            )
        self.odd = forward

    def forward(self, x):
        return self.odd(self.network, x)


class Stubborn(Odd):
    def train(self, _mode=True):
        return super().train(True)


class InTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.network = nn.BatchNorm2d(1), Odd()

    def train(self, mode=True):
        super().train(mode)
        self.norm.train()
        return self

    def forward(self, x):
        return self.network(self.norm(x))


class OfTheBatch(InTraining):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)

    def train(self, mode=True):
        return nn.Module.train(self, mode)


class Harmless(Odd):
    """A part that stays in training mode, which changes nothing."""

    def __init__(self):
        super().__init__()
        self.part = nn.Identity()

    def train(self, mode=True):
        super().train(mode)
        self.part.train()
        return self


class Counting(Odd):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return super().forward(x)


class LateState(Odd):
    """A buffer that comes to be at the first call."""

    def forward(self, x):
        if not hasattr(self, "late"):
            self.register_buffer("late", torch.zeros(()))
        return super().forward(x)


def seeding(network, x):
    torch.manual_seed(0)
    return network(x + 0.01 * torch.randn(1, *x.shape[1:]))


class DrawsOnce(Odd):
    """At its first call, what it then keeps."""

    once = None

    def forward(self, x):
        if self.once is None:
            self.once = torch.randn(1, 1, 8, 8)
        return super().forward(x + 0.01 * self.once)


def rarely(network, x):
    """Random in one call of millions."""
    return network(x) + (torch.rand(()) < 1e-7)


def with_numpy(network, x):
    return network(x) + (np.random.random() < 1e-7)


def with_python(network, x):
    return network(x) + (random.random() < 1e-7)


def off_the_grid(network, x):
    """Rounds in place, which leaves grey levels alone."""
    x.data.mul_(255).round_().div_(255)
    return network(x)


def cast(network, x):
    return network(x).bfloat16().float()


class BackwardFails(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, x):
        return x.clone()

    @staticmethod
    def backward(_ctx, _slope):
        raise ValueError("no way back")


class NonFiniteBackward(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, x):
        return x.clone()

    @staticmethod
    def backward(_ctx, slope):
        return slope * torch.inf


@torch.no_grad()
def without_gradients(network, x):
    return network(x)


@pytest.fixture(scope="module")
def images():
    """Of noise."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (20, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.randint(10, (20,), generator=generator))


def look(module, images, *, attacked=True, averaged=False):
    with measured(module):
        return suspicions(module, module, images, 10, attacked=attacked, averaged=averaged)


def test_an_honest_network_is_not_suspected_and_stays_as_it_is(images):
    module = Odd().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert look(module, images) == []
    assert look(nn.Sequential(nn.BatchNorm2d(1), Odd()), images) == []
    assert look(DrawsOnce(), images) == []
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


ERRORS = {
    "tuple": (
        Odd(lambda net, x: (net(x), x)),
        "it returns a tuple of 2, and logits are wanted; let a factory of yours wrap it and pick them out",
    ),
    "dict": (
        Odd(lambda net, x: {"logits": net(x), "loss": None}),
        "it returns dict with logits, loss, and logits are wanted; let a factory of yours wrap it and pick them out",
    ),
    "None": (
        Odd(lambda _net, _x: None),
        "it returns NoneType, and logits are wanted; let a factory of yours wrap it and pick them out",
    ),
    "classes": (
        Odd(lambda net, x: net(x)[:, :7]),
        "it returns (16, 7) for 16 images, and for the data's 10 classes (16, 10) is wanted; many factories take "
        "num_classes (--model-args)",
    ),
    "squeezed": (
        Odd(lambda net, x: net(x).squeeze()),
        "it returns (10,) for one image, and for the data's 10 classes (1, 10) is wanted",
    ),
    "channels": (
        nn.Sequential(nn.Conv2d(3, 1, 3), Odd()),
        "it fails on images of shape (16, 1, 8, 8), float32, in [0, 1], on cpu: RuntimeError: Given groups=1, weight "
        "of "
        "size [1, 3, 3, 3], expected input[16, 1, 8, 8] to have 3 channels, but got 1 channels instead",
    ),
    "rounded": (
        Odd(lambda net, x: net(x).bfloat16()),
        "its logits are bfloat16, and an evaluation is float32: rounded logits hide gradients. Take the cast, or "
        "autocast, out of its forward",
    ),
    "non-finite": (
        Odd(lambda net, x: net(x).log()),
        "its logits are not finite for 16 of 16 images",
    ),
    "in-place": (
        Odd(lambda net, x: net(x.sub_(0.5))),
        "it changes the images that it is given: an operation in its forward is in-place",
    ),
    "in-place off the grid": (
        Odd(off_the_grid),
        "it changes the images that it is given: an operation in its forward is in-place",
    ),
    "late state": (
        LateState(),
        "it changes its own state in eval mode (late), so that a verdict can depend on those before it",
    ),
    "seeding": (
        Odd(seeding),
        "it sets torch's random numbers to the same ones at every call, and attacks draw theirs from there: let it "
        "have a torch.Generator of its own, or keep what it draws in a buffer",
    ),
    **{
        f"rarely random, {name}": (
            Odd(forward),
            "it is random: it draws numbers: dropout that is active in eval mode, or noise. Attacks that do not "
            "average over that overestimate it; AutoAttack's version rand does: --set "
            '\'evaluators=[{kind="pristine"}, {kind="autoattack", version="rand"}]\'',
        )
        for name, forward in (("torch", rarely), ("numpy", with_numpy), ("Python", with_python))
    },
    "functional dropout": (
        Odd(lambda net, x: F.dropout(net(x), 0.5)),
        "it is random: the logits of the same images differ by NUMBER of their size: dropout that is active in eval "
        "mode, "
        "or noise. Attacks that do not average over that overestimate it; AutoAttack's version rand does: --set "
        '\'evaluators=[{kind="pristine"}, {kind="autoattack", version="rand"}]\'',
    ),
    "dropout": (
        Stubborn(),
        "it is random: the logits of the same images differ by NUMBER of their size: dropout is active (network.3). "
        "Attacks that do not average over that overestimate it; AutoAttack's version rand does: --set "
        '\'evaluators=[{kind="pristine"}, {kind="autoattack", version="rand"}]\'; it stays in training mode after '
        "eval(): itself, network, network.0, network.1, network.2, and 2 more",
    ),
    "batch norm in training mode": (
        InTraining(),
        "the logits of an image depend on the images beside it, by NUMBER of their size, so that there is no verdict "
        "on "
        "an image: batch norm uses the statistics of the batch (norm); it stays in training mode after eval(): norm",
    ),
    "batch norm without statistics": (
        OfTheBatch(),
        "the logits of an image depend on the images beside it, by NUMBER of their size, so that there is no verdict "
        "on "
        "an image: batch norm uses the statistics of the batch (norm)",
    ),
    "batch": (
        Odd(lambda net, x: net(x) - net(x).mean(dim=0)),
        "the logits of an image depend on the images beside it, by NUMBER of their size, so that there is no verdict "
        "on "
        "an image",
    ),
    **{
        f"batch, {name}": (
            Odd(forward),
            "the logits of an image depend on the images beside it, by NUMBER of their size, so that there is no "
            "verdict on an image",
        )
        for name, forward in (
            ("of its second half", lambda net, x: net(x) + (torch.arange(len(x)) >= 8)[:, None]),
            ("of one", lambda net, x: net(x) + (len(x) == 1)),
            ("by a thousandth", lambda net, x: net(x) + 1e-3 * net(x).mean(dim=0)),
        )
    },
    "state": (
        Counting(),
        "it changes its own state in eval mode (seen), so that a verdict can depend on those before it",
    ),
    "blind to the image": (
        Odd(lambda net, x: net((x / 2).to(torch.uint8).float())),
        "its logits are the same for 16 different images in [0, 1]: does it take another range (--input-range "
        "0,255), or "
        "round its input, or is its last layer zero, as some untrained ones are?",
    ),
    "probabilities": (
        Odd(lambda net, x: net(x).softmax(dim=1)),
        "it returns probabilities (no negative, and a sum of 1), and logits are wanted: a softmax of a softmax hides "
        "gradients from cross-entropy. Leave its softmax out, or return the logarithm",
    ),
    "no_grad": (
        Odd(without_gradients),
        "its logits have no gradient in the image (no_grad, a detach, or numpy in its forward, or gradients that its "
        "code "
        "has switched off), so attacks are blind",
    ),
    "steps": (
        Odd(lambda net, x: net((8 * x).round() / 8)),
        "the gradient of its logits in the image is zero, so attacks are blind: does it round its input?",
    ),
    "backward fails": (
        Odd(lambda net, x: net(BackwardFails.apply(x))),
        "the gradient in the image fails: ValueError: no way back",
    ),
    "non-finite gradient": (
        Odd(lambda net, x: net(NonFiniteBackward.apply(x))),
        "its gradient in the image is not finite, so attacks are blind",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("module", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_what_cannot_be_measured_is_an_error_that_names_it(module, message, images):
    with pytest.raises(ForeignModelError) as error:
        look(module, images)
    assert re.sub(r"\d\.\de[+-]\d\d", "NUMBER", str(error.value)) == message


SUSPICIOUS = {
    "training mode": (Harmless(), "it stays in training mode after eval(): part"),
    "log-probabilities": (
        Odd(lambda net, x: net(x).log_softmax(dim=1)),
        "it returns log-probabilities; the losses of the attacks are the same as of logits if log_softmax gives them, "
        "and saturate if they are logarithms of a softmax",
    ),
    "clamped log-probabilities": (
        Odd(lambda net, x: (60 * net(x)).softmax(dim=1).clamp(1e-12).log()),
        "N of 160 outputs are exactly the smallest or the largest, -27.63 and 0, as after a clamp; logits have no "
        "bounds, and saturation hides gradients",
    ),
    "cast": (
        Odd(cast),
        "its logits are all bfloat16 numbers, as after a cast or autocast; rounded logits hide gradients",
    ),
    "cast to half": (
        Odd(lambda net, x: net(x).half().float()),
        "its logits are all float16 numbers, as after a cast or autocast; rounded logits hide gradients",
    ),
    "sigmoid": (
        Odd(lambda net, x: net(x).sigmoid()),
        "all its outputs are in [0, 1], as a sigmoid's; logits have no bounds, and saturation hides gradients",
    ),
    "tanh": (
        Odd(lambda net, x: (20 * net(x)).tanh()),
        "all its outputs are in [-1, 1], as a tanh's; logits have no bounds, and saturation hides gradients",
    ),
    "clamp": (
        Odd(lambda net, x: (30 * net(x)).clamp(-5, 5)),
        "N of 160 outputs are exactly the smallest or the largest, -5 and 5, as after a clamp; logits have no bounds, "
        "and saturation hides gradients",
    ),
}


@pytest.mark.parametrize(("module", "message"), SUSPICIOUS.values(), ids=SUSPICIOUS.keys())
def test_what_is_suspicious_is_said(module, message, images):
    assert [re.sub(r"^\d+ of 160", "N of 160", one) for one in look(module, images)] == [message]


def test_small_logits_are_no_tanh_s(images):
    assert look(Odd(lambda net, x: (0.1 * net(x)).tanh()), images) == []


def test_logits_that_only_look_like_something_else_are_not_suspected():
    spread = torch.linspace(-3, 3, 160).reshape(16, 10)
    some = spread.clone()
    some[-1] = 9
    some[-2, -5:] = 9
    one_of_them = torch.cat([spread[:1].log_softmax(dim=1), spread[1:]])
    other = spread * torch.linspace(0.5, 1.5, 16)[:, None]
    near = (other.log_softmax(dim=1) + 0.01, other - other.mean(dim=1, keepdim=True) + 0.1)
    for logits in (spread[:1], spread + 4, one_of_them, *near, some, spread / 3):
        assert list(_of_the_output(logits)) == []
    some[-2, -6] = 9
    assert [one.partition(" are")[0] for one in _of_the_output(some)] == ["17 of 160 outputs"]


def test_what_is_no_more_than_rounding_or_the_same_for_the_same_images_is_no_fault(images):
    assert look(Odd(lambda net, x: net(x) + 1e-6 * net(x).mean(dim=0)), images) == []
    same = Images(images.pixels[:1].repeat(16, 1, 1, 1), images.labels[:16])
    assert not [line for line in look(Odd(), same) if "as after a clamp" in line]


def test_dropout_of_nothing_is_not_what_is_random(images):
    module = Stubborn(lambda net, x: net(x) + 1e-3 * torch.randn(10))
    module.network[3].p = 0.0
    differ = r"the logits of the same images differ by .*: dropout that is active in eval mode, or noise\."
    with pytest.raises(ForeignModelError, match=differ):
        look(module, images)


@pytest.mark.parametrize("tracked", [True, False])
def test_a_batch_norm_that_no_single_image_goes_through_is_named(images, tracked):
    """torch's own words are of one value per channel, and say nothing of modes."""

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.outer = nn.BatchNorm1d(64, track_running_stats=tracked), nn.Linear(64, 10)

        def train(self, mode=True):
            return super().train(mode or tracked)

        def forward(self, x):
            return self.outer(self.norm(x.flatten(1)))

    module = Module()
    with pytest.raises(ForeignModelError) as error:
        suspicions(module.eval(), module, images, 10, attacked=True, averaged=False)
    cause = ": batch norm uses the statistics of the batch (norm)"
    mode = "; it stays in training mode after eval(): itself, norm, outer"
    assert str(error.value).endswith(cause + mode if tracked else cause)


def test_a_loss_that_is_saturated_is_told_from_a_network_that_is_blind(images):
    sure = Odd(lambda net, x: 1e6 * net(x))
    predicted = sure.eval()(images.pixels / 255).argmax(dim=1)
    labels = torch.where(torch.arange(20) < 5, predicted, (predicted + 1) % 10)
    assert look(sure, Images(images.pixels, labels)) == [
        "the gradient of the cross-entropy is zero in 5 of 16 images, and that of the logits is not: PGD with loss = "
        '"margin" sees more'
    ]


def test_what_moves_all_logits_alike_is_nothing_that_an_attack_sees(images):
    """Four of them: the gradient is a sum of quarters, which is exact."""
    module = Odd(lambda net, x: net((8 * x).round() / 8)[:, :4] + x.mean(dim=(1, 2, 3))[:, None])
    fours = Images(images.pixels, images.labels % 4)
    with measured(module), pytest.raises(ForeignModelError, match="the gradient of its logits in the image is zero"):
        suspicions(module, module, fours, 4, attacked=True, averaged=False)


def test_a_network_that_is_blind_in_part_says_in_how_many_images(images):
    def rounds_the_bright(network, x):
        return network(torch.where(x.mean((1, 2, 3), keepdim=True) > 0.5, x.round(), x))

    bright = int(((images.pixels[:16] / 255).mean((1, 2, 3)) > 0.5).sum())
    assert 0 < bright < 16
    assert look(Odd(rounds_the_bright), images) == [f"the gradient of its logits is zero in {bright} of 16 images"]


@pytest.mark.parametrize(("attacked", "what"), [(False, "16 images"), (True, "the gradient of 16 images")])
def test_a_lack_of_memory_is_no_fault_of_its_code(images, attacked, what):
    def forward(network, x):
        if x.requires_grad is attacked:
            raise MemoryError
        return network(x)

    with pytest.raises(MemoryExhaustedError, match=f"^out of memory with {what}$"):
        look(Odd(forward), images)


def test_what_averages_may_measure_what_is_random(images):
    (found,) = look(Odd(lambda net, x: F.dropout(net(x), 0.5)), images, averaged=True)
    assert found.endswith(": dropout that is active in eval mode, or noise. A verdict is one draw")
    (found,) = look(Odd(lambda net, x: F.dropout(net(x), 0.5)), images, attacked=False)
    assert found.endswith("A verdict is one draw")


def test_what_needs_no_gradient_is_not_asked_for_one(images):
    assert look(Odd(without_gradients), images, attacked=False) == []
    assert look(Odd(lambda net, x: net((8 * x).round() / 8)), images, attacked=False) == []


# ---- accuracy ------------------------------------------------------------------------------------------------------


def judged(network, images, **others):
    with measured(network):
        return list(of_the_accuracy(network, others, images, NAMES))


def test_a_network_that_knows_its_images_is_not_suspected(trained):
    network, data = trained
    assert judged(network, data.test) == []
    assert judged(network, data.test, other=lambda x: network(1 - x)) == []


def test_another_convention_that_does_better_is_named(trained):
    network, data = trained
    images = data.test.first(200)
    right = int((network(images.pixels / 255).argmax(1) == images.labels).sum())
    inverted = lambda x: network(1 - x)  # noqa: E731
    wrong = int((inverted(images.pixels / 255).argmax(1) == images.labels).sum())
    others = {"worse": lambda x: 0 * network(x), "that": network, "no": lambda x: x[99], "NaN": lambda x: x * torch.nan}
    with measured(network):
        (found,) = of_the_accuracy(inverted, others, images, NAMES)
    assert found == f"{wrong} of the first 200 images are right, and {right} with that: is that what it takes?"


@pytest.mark.parametrize("cycled", [10, 6, 3])
def test_another_order_of_the_classes_is_noticed_where_some_are_right_too(trained, cycled):
    network, data = trained
    images = data.test.first(200)
    right = int((network(images.pixels / 255).argmax(1) == images.labels).sum())
    order = [*range(1, cycled), 0, *range(cycled, 10)]
    with measured(network):
        (found,) = of_the_accuracy(lambda x: network(x)[:, order], {}, images, NAMES)
    assert re.sub(r"^\d+", "N", found) == (
        f"N of the first 200 images are right, and {right} if its classes come in another order: the data has "
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    )


def test_a_prediction_that_is_none_is_not_counted(images):
    with pytest.raises(EvaluationError, match="not finite"):
        judged(Odd(lambda net, x: net(x).index_fill(1, torch.tensor(3), torch.inf)), images)


def test_of_two_that_are_no_better_than_chance_neither_is_the_convention(images):
    labels = torch.zeros(len(images.labels), dtype=torch.int64)
    shown = Images(images.pixels, labels)
    always = torch.nn.functional.one_hot(torch.arange(10)).float()

    def worse(x):
        return always[torch.arange(len(x)) % 9 + 1]

    (found,) = of_the_accuracy(worse, {"that": lambda x: always[0].expand(len(x), 10)}, shown, NAMES)
    assert found == f"0 of the first 20 images are right, and {len(labels)} with that: is that what it takes?"
    many = Images(images.pixels.repeat(10, 1, 1, 1), labels.repeat(10))
    chance = lambda x: always[(torch.arange(len(x)) >= 2).long()]  # noqa: E731 (26 of 200)
    (found,) = of_the_accuracy(worse, {"that": chance}, many, NAMES)
    assert found.startswith("not shown to be better than chance: 0 of the first 200 images are right")


def always(classes):
    """Logits of a network that says these, whatever it is shown."""
    return lambda x: F.one_hot(torch.as_tensor(classes)[: len(x)], 10).float()


@pytest.mark.parametrize(("right", "chance"), [(34, True), (35, False)])
def test_chance_has_to_be_rarer_than_once_in_a_thousand(right, chance):
    labels = torch.cat([torch.zeros(right, dtype=torch.int64), torch.arange(200 - right) % 9 + 1])
    images = Images(torch.zeros(200, 1, 1, 1, dtype=torch.uint8), labels)
    found = list(of_the_accuracy(always([0] * 16), {}, images, NAMES))
    assert [one.partition(":")[0] for one in found] == ["not shown to be better than chance"] * chance


@pytest.mark.parametrize(("gained", "better"), [(9, False), (10, True)])
def test_another_convention_has_to_do_better_by_more_than_chance(gained, better):
    pixels = torch.arange(200, dtype=torch.uint8).reshape(200, 1, 1, 1)
    images = Images(pixels, torch.arange(200) % 10)

    def right(count, x):
        at = (255 * x).round().long().flatten()
        return F.one_hot((at + (at >= count)) % 10, 10).float()

    others = {"a": lambda x: right(100 + gained, x), "b": lambda x: right(101 + gained, x)}
    found = list(of_the_accuracy(lambda x: right(100, x), dict([*others.items()][: 1 + better]), images, NAMES))
    expected = f"100 of the first 200 images are right, and {101 + gained} with b: is that what it takes?"
    assert found == [expected] * better


def test_an_order_with_which_most_would_be_wrong_too_is_not_named():
    """80 of 200 with its best one, and 40 as it is."""
    images = Images(torch.arange(200, dtype=torch.uint8).reshape(200, 1, 1, 1), torch.arange(200) % 10)
    moved = torch.tensor([1] * 8 + [0] * 4 + [*range(2, 10)])

    def network(x):
        at = (255 * x).round().long().flatten()
        return F.one_hot((at + moved[at // 10]) % 10, 10).float()

    assert list(of_the_accuracy(network, {}, images, NAMES)) == []


def test_chance_is_noticed(images):
    (found,) = judged(Odd(), images)
    assert re.sub(r"\d+ of the", "N of the", found) == (
        "not shown to be better than chance: N of the first 20 images are right, of 10 classes: are the weights, "
        "--input-range, --normalize and the order of the classes right?"
    )


def test_a_network_that_seeds_may_be_measured_where_nothing_draws(images):
    assert look(Odd(seeding), images, attacked=False) == []
    # Also one whose numbers are as it sets them before it is called for the first time.
    with measured(module := Odd(seeding)):
        torch.manual_seed(0)
        with pytest.raises(ForeignModelError, match="it sets torch's random numbers"):
            suspicions(module, module, images, 10, attacked=True, averaged=True)


def test_of_two_generators_one_may_be_set_and_the_other_drawn_from():
    still, drawn = ((b"a", b"a1", b"a1"), (b"a", b"a1", b"a2"))
    again = (b"a", b"a1", b"a")
    for pair, found in (
        ((still, still), (False, False)), ((still, again), (True, False)), ((again, still), (True, False)),
        ((drawn, still), (False, True)), ((drawn, again), (True, True)),
    ):  # fmt: skip
        states = [_Drawn(both, ()) for both in zip(*pair, strict=True)]
        assert _between_calls(*states) == found
    others = [_Drawn((b"a",), (number,)) for number in (1, 1, 2)]
    assert _between_calls(*others) == (False, True)
