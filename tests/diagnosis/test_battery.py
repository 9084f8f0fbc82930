"""Each check passes and fails where it says, on numbers that are given."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from advmix_cli.data.images import Images, to_unit
from advmix_cli.diagnosis import battery as module
from advmix_cli.diagnosis.battery import Battery
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.subject import Subject

PIXELS, EPSILON = 4, 0.1


def battery(n, network=None, transfer=None, epsilon=EPSILON, right=None):
    """Grey images; of those of a network that always says 0, the first `right` have that label."""
    labels = torch.zeros(n, dtype=torch.int64)
    labels[n if right is None else right :] = 1
    pixels = torch.full((n, 1, 2, 2), 127, dtype=torch.uint8)
    subject = Subject.plain(network or Constant())
    return Battery(subject, Images(pixels, labels), epsilon, 2, 0, 7, transfer, {}, lambda *_: None)


class Constant(torch.nn.Module):
    def forward(self, x):
        return torch.tensor([1.0, 0.0]) + 0 * x.flatten(1)[:, :2]


@pytest.fixture
def accuracies(monkeypatch):
    """accuracies(f): what PGD finds is f(its changes); the changes are listed."""

    def give(found):
        def accuracy(_, **changes):
            asked.append(changes)
            return found(changes)

        monkeypatch.setattr(Battery, "_accuracy", accuracy)
        return asked

    asked = []
    return give


@pytest.mark.parametrize(("flat", "broken", "passes"), [(0, 0, True), (2, 0, True), (3, 0, False), (0, 1, False)])
def test_one_gradient_of_a_hundred_may_be_zero_and_none_not_finite(flat, broken, passes):
    class Marked(torch.nn.Module):
        """What is white in its first pixel has no slope, what is black one without an end."""

        def forward(self, x):
            first, values = x.flatten(1)[:, :1], x.flatten(1)[:, 1:3]
            white, black = (first > 0.85).squeeze(1), (first < 0.15).squeeze(1)
            logits = values.clone()
            logits[white] = values[white].detach()
            logits[black] = (0 * values[black]).sqrt()
            return logits

    one = battery(200, Marked())
    one.images.pixels[:flat, :, 0, 0] = 255
    one.images.pixels[200 - broken :, :, 0, 0] = 0
    check = one._gradients()
    assert check.passed is passes
    assert check.figures == {"zero": flat / 200, "non_finite": broken / 200}
    assert check.number == f"{flat / 2} % zero, {broken / 2} % not finite"


def test_gradients_are_looked_for_at_a_random_point_of_each_ball_within_the_box():
    class Seen(Constant):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x)

    seen = []
    one = battery(20, Seen())
    one.images.pixels[:10] = 255
    one._gradients()
    moved = torch.cat(seen) - to_unit(one.images.pixels)
    assert moved[:10].max() == 0
    assert len(moved[10:].unique()) == 10 * PIXELS
    assert 0.9 * EPSILON < moved.abs().max() <= EPSILON + 1e-6


def test_its_pgd_takes_twenty_steps_of_a_quarter_of_epsilon_from_random_starts():
    assert replace(battery(1), seed=3)._pgd() == Pgd(EPSILON, EPSILON / 4, 20, 1, "uniform", "cross-entropy", 3, 7)


@pytest.mark.parametrize(
    ("ladder", "passes"),
    [
        ((0.5, 0.4, 0.3, 0.2), True),
        ((0.5, 0.51, 0.3, 0.2), True),
        ((0.5, 0.515, 0.3, 0.2), False),
        ((0.5, 0.2, 0.2, 0.3), False),
    ],
)
def test_more_steps_may_gain_the_network_a_point_at_any_of_them(ladder, passes):
    check = battery(200)._more_steps(dict(zip(module.LADDER, ladder, strict=True)))
    assert check.passed is passes
    assert check.number == ", ".join(f"{100 * one:.1f}" for one in ladder) + " %"


def test_the_recipe_s_worst_pgd_may_be_two_points_above(monkeypatch):
    monkeypatch.setattr(Battery, "_robust", lambda _, pgd: torch.arange(200) < pgd.steps)
    pgd = Pgd(EPSILON, 0.01, 100, 1, "uniform", "cross-entropy", 0, 50)
    one = replace(battery(200), reported={"a": replace(pgd, steps=104), "b": pgd})
    assert one._reported(0.5).passed is True
    assert one._reported(0.5).number == "a 52.0 %, b 50.0 %; 50.0 %"
    assert replace(one, reported={"b": pgd, "a": replace(pgd, steps=105)})._reported(0.5).passed is False
    assert battery(200)._reported(0.5).passed is None


@pytest.mark.parametrize(
    ("first", "half", "last", "passes"),
    [(0, 9, 10, True), (0, 8.9, 10, False), (1, 1, 1, False), (1, 0.5, 0.4, False), (2, 2.5, 2.5, True)],
)
def test_nine_tenths_of_the_rise_come_in_the_first_half(monkeypatch, first, half, last, passes):
    def ascend(_objective, variables, steps):
        assert variables[0].step_size == EPSILON / 4
        path = [torch.zeros(len(variables[0].value)) for _ in range(steps)]
        for at, value in ((0, first), (50, half), (100, last)):
            path[at] += value
        return None, path

    monkeypatch.setattr(module, "ascend", ascend)
    check = battery(20)._converged()
    assert check.passed is passes
    assert list(check.figures.values()) == pytest.approx([first, half, last])


def test_noise_is_the_worst_of_ten_draws_and_pgd_may_be_a_point_above():
    one = battery(200, right=100)
    for attacked, passes in ((0.51, True), (0.515, False), (0.2, True)):
        check = one._noise(attacked)
        assert (check.passed, check.figures["noise"]) == (passes, 0.5)
        assert check.number == f"{100 * attacked:.1f}, 50.0 %"

    class Fragile(torch.nn.Module):
        """Three of four random points leave it right."""

        def forward(self, x):
            first = x.flatten(1)[:, :1]
            return torch.cat([first, torch.full_like(first, 127 / 255 - EPSILON / 2)], dim=1)

    found = battery(200, Fragile())._noise(0).figures["noise"]
    assert 0.02 < found < 0.12  # 0.75 to the tenth is 0.056


@pytest.mark.parametrize(("n", "lost", "passes"), [(200, 10, True), (200, 11, False), (4, 1, True), (4, 2, False)])
def test_restarts_may_gain_five_points_or_an_image(accuracies, n, lost, passes):
    asked = accuracies(lambda _: 0.5 - lost / n)
    check = battery(n)._restarts(0.5)
    assert check.passed is passes
    assert check.wanted == ("at most 5 points" if n == 200 else "at most 25 points")
    assert check.number == f"50.0, {50 - 100 * lost / n:.1f} %"
    assert asked == [{"restarts": 5}]


@pytest.mark.parametrize(("n", "found", "passes"), [(200, 2, True), (200, 3, False), (60, 1, True), (60, 2, False)])
def test_square_may_break_one_image_of_a_hundred_or_one(monkeypatch, n, found, passes):
    verdicts = SimpleNamespace(broken=lambda: {"clean": 3, "apgd-ce": 7, "square": found})
    asked = []
    monkeypatch.setattr(module, "AutoAttack", lambda *given: asked.append(given) or (lambda *_: verdicts))
    check = battery(n)._square()
    assert asked == [("cheap-2020", EPSILON, 0, 7)]
    assert check.passed is passes
    assert check.number == f"{found} of {n} images"
    assert check.wanted == f"at most {2 if n == 200 else 1} of {n} images"
    assert check.figures == {"clean": 3 / n, "apgd-ce": 7 / n, "square": found / n}


@pytest.mark.parametrize(("accuracy", "passes"), [(0.0, True), (0.495, True), (0.5, False), (1.0, False)])
def test_nothing_stands_below_chance_where_everything_may_change(accuracies, accuracy, passes):
    asked = accuracies(lambda _: accuracy)
    check = battery(200)._everything()
    assert (check.passed, check.number) == (passes, f"{100 * accuracy:.1f} %")
    assert asked == [{"epsilon": 1.0, "step_size": 0.1, "steps": 100}]


def test_the_curve_may_rise_a_point_anywhere_and_ends_at_one(accuracies):
    def curve(at, value):
        return lambda changes: value if changes["epsilon"] == pytest.approx(at) else 0.5

    for at in (0.025, 0.4):
        accuracies(curve(at, 0.51))
        assert battery(200, right=100)._curve(0.5).passed is True
        accuracies(curve(at, 0.515))
        assert battery(200, right=100)._curve(0.5).passed is False
    assert battery(200, right=100)._curve(0.52).passed is False
    asked = accuracies(lambda _: 0.0)
    asked.clear()
    points = battery(200, right=100, epsilon=0.4)._curve(0.25).figures["curve"]
    assert [one["epsilon"] for one in points] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
    assert [one["accuracy"] for one in points] == [0.5, 0, 0, 0, 0.25, 0, 0]
    assert all(changes["step_size"] == changes["epsilon"] / 4 for changes in asked)
    points = battery(20)._curve(0.0).figures["curve"]
    assert [one["epsilon"] for one in points] == pytest.approx([0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4])


def test_images_made_for_another_network_may_break_a_point_more():
    class Dark(torch.nn.Module):
        """Right where the first pixel is no lighter than it was."""

        def forward(self, x):
            first = x.flatten(1)[:, :1]
            return torch.cat([torch.full_like(first, 127 / 255 + EPSILON / 2), first], dim=1)

    class Pushed(torch.nn.Module):
        """Whose attack makes it lighter, or darker; right as it is where `base` is 2."""

        def __init__(self, sign, base=2):
            super().__init__()
            self.sign, self.base = sign, base

        def forward(self, x):
            first = x.flatten(1)[:, :1]
            return torch.cat([self.base - self.sign * first, 0 * first], dim=1)

    lighter = battery(200, Dark(), Pushed(1))
    harmless = battery(200, Dark(), Pushed(-1), right=150)
    assert lighter._transferred(0.5).figures == {"transfer": 0.0, "white_box": 0.5}
    # What the other network gets wrong as it is, is attacked too.
    assert battery(200, Dark(), Pushed(1, base=-2))._transferred(0.5).figures["transfer"] == 0.0
    assert harmless._transferred(0.5).figures["transfer"] == 0.75
    for own, passes in ((0.75, True), (0.76, True), (0.765, False), (0.1, True)):
        assert harmless._transferred(own).passed is passes
        assert harmless._transferred(own).number == f"75.0 %, its own {100 * own:.1f} %"
    assert battery(20)._transferred(0.5).passed is None

    class Light(torch.nn.Module):
        """Right where the first pixel is darker than it was."""

        def forward(self, x):
            first = x.flatten(1)[:, :1]
            return torch.cat([torch.full_like(first, 127 / 255 - EPSILON / 2), first], dim=1)

    # What is wrong as it is stays wrong, whatever another network's images do to it.
    assert battery(200, Light(), Pushed(-1))._transferred(0.5).figures["transfer"] == 0.0


def test_each_check_is_given_the_attack_that_it_names(monkeypatch, accuracies):
    accuracies(lambda changes: changes["steps"])
    gradients = SimpleNamespace(figures={"non_finite": 0})
    monkeypatch.setattr(Battery, "_gradients", lambda _: gradients)
    names = ("_more_steps", "_reported", "_converged", "_noise", "_restarts", "_square", "_everything", "_curve")
    for name in (*names, "_transferred"):
        monkeypatch.setattr(Battery, name, lambda _, *given, name=name: (name, *given))
    assert list(battery(20)()) == [
        gradients, ("_more_steps", {10: 10, 20: 20, 50: 50, 100: 100}), ("_reported", 100), ("_converged",),
        ("_noise", 20), ("_restarts", 20), ("_square",), ("_everything",), ("_curve", 20), ("_transferred", 20),
    ]  # fmt: skip
    gradients.figures["non_finite"] = 0.1
    assert list(battery(20)()) == [gradients]


def test_a_point_is_at_least_one_image():
    assert battery(50)._slack == pytest.approx(0.02)
    assert battery(1000)._slack == pytest.approx(0.01)
    assert (battery(100)._said(), battery(50)._said(), battery(100)._said(2)) == ("1 point", "2 points", "2 points")
