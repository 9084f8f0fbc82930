"""The figures of one climb."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advmix_cli.method.maximizers import Attack, Pristine
from advmix_cli.probing.climb import Climb
from advmix_cli.probing.numbers import Share, Spread, Undefined
from advmix_cli.probing.perturbation import Perturbation, everywhere, roles

NO_ASCENT = Undefined("nothing is attacked")
NOT_MIXED = Undefined("nothing is mixed")


@dataclass(frozen=True)
class Place:
    """A place on the path of an ascent: the objective of the images, and the share of δ that is at ±ε."""

    loss: Spread
    at_epsilon: Share | Undefined


@dataclass(frozen=True)
class Look:
    """One batch through the inner maximizer."""

    path: tuple[Place, ...]
    """At the start and after each step; empty if there is no ascent."""
    reached: Spread
    """d(f(x'), y') of the batch to train on."""
    at_epsilon: Share | Undefined
    """Components of the final δ that are as large as the threat allows."""
    at_image_bound: Share | Undefined
    """Components that [0, 1] holds before that."""
    ratio_before: Spread | Undefined
    """λ_x, before the ascent."""
    ratio_after: Spread | Undefined
    ratio_moved: Spread | Undefined
    """|λ_x after - λ_x before|."""
    label_shift: Spread | Undefined
    """|λ_y - λ_x|, of the pairs of two classes: in the label of two images of one class there is no λ_y."""
    self_pairs: Share | Undefined
    """Images that are mixed with themselves."""
    signs_in_a_pair: Share | Undefined
    """Components where δ_i and δ_j of a mixture have one sign."""
    signs_of_an_image: Share | Undefined
    """Components where δ of an image as x_i, and of the same image as x_j of another mixture, have one sign."""

    def to_json(self) -> dict[str, Any]:
        """Every figure; what has none says why."""
        figures = {name: value.to_json() for name, value in vars(self).items() if name != "path"}
        places = [{"loss": place.loss.to_json(), "at_epsilon": place.at_epsilon.to_json()} for place in self.path]
        return {"path": places, **figures}


def look(climb: Climb, y: Tensor, epsilon: float) -> Look:
    """`y` (B, K) one-hot, as the climb was given it."""
    mixes = not isinstance(climb.maximizer, Pristine | Attack)
    partner = climb.draws.permutation
    alone = partner == torch.arange(len(y), device=y.device)
    before, after = climb.ratio_before, climb.found.ratio.to(climb.ratio_before.dtype)
    final = everywhere(climb)
    return Look(
        path=tuple(
            Place(Spread.of(losses), _at_epsilon(everywhere(climb, number), epsilon))
            for number, losses in enumerate(climb.path)
        ),
        reached=Spread.of(climb.reached),
        at_epsilon=_at_epsilon(final, epsilon),
        at_image_bound=_at_image_bound(final, epsilon),
        ratio_before=Spread.of(before) if mixes else NOT_MIXED,
        ratio_after=Spread.of(after) if mixes else NOT_MIXED,
        ratio_moved=Spread.of((after - before).abs()) if mixes else NOT_MIXED,
        label_shift=_label_shift(climb, y) if mixes else NOT_MIXED,
        self_pairs=Share.of(alone) if mixes else NOT_MIXED,
        signs_in_a_pair=_signs_in_a_pair(climb, alone),
        signs_of_an_image=_signs_of_an_image(climb, alone),
    )


def _at_epsilon(delta: Perturbation | None, epsilon: float) -> Share | Undefined:
    if delta is None:
        return NO_ASCENT
    return Share.of(delta.at_epsilon(epsilon)) if epsilon else Undefined("ε = 0")


def _at_image_bound(delta: Perturbation | None, epsilon: float) -> Share | Undefined:
    if delta is None:
        return NO_ASCENT
    if not epsilon:
        return Undefined("ε = 0")
    return Share.of(delta.at_image_bound(epsilon))


def label_ratio(climb: Climb, y: Tensor) -> tuple[Tensor, Tensor]:
    """λ_y (B,) as the labels to train on show it, and where they do: (B,) bool. The label of x_i has it, unless x_j has
    the same one."""
    own = y.argmax(dim=1)
    return climb.found.y.gather(1, own[:, None]).squeeze(1), own != own[climb.draws.permutation]


def _label_shift(climb: Climb, y: Tensor) -> Spread | Undefined:
    found, shown = label_ratio(climb, y)
    if not shown.any():
        return Undefined("no pair has two classes")
    shift = (found - climb.found.ratio.to(found.dtype)).abs()
    return Spread.of(shift[shown])


def _signs_in_a_pair(climb: Climb, alone: Tensor) -> Share | Undefined:
    left, right = roles(climb)
    if left is None or right is None:
        return _no_pair(climb)
    return _same_signs(left, right, ~alone)


def _signs_of_an_image(climb: Climb, alone: Tensor) -> Share | Undefined:
    left, right = roles(climb)
    if left is None or right is None:
        return _no_pair(climb)
    if len(left.delta) == len(climb.seen[0][0].value):
        return Undefined("shared: one δ for both roles")
    # δ_j of row i is that of image partner[i].
    return _same_signs(left.at(climb.draws.permutation), right, ~alone)


def _no_pair(climb: Climb) -> Undefined:
    match climb.maximizer:
        case Pristine():
            return NO_ASCENT
        case Attack():
            return NOT_MIXED
        case _:
            return Undefined("the mixture has one δ")


def _same_signs(left: Perturbation, right: Perturbation, wanted: Tensor) -> Share | Undefined:
    """Among the components that may move both ways, and have moved, in both, of the pairs in `wanted` (B,)."""
    compared = left.free & right.free & wanted[:, None, None, None]
    if not compared.any():
        return Undefined("no pixel could go both ways")
    return Share.of((left.delta.sign() == right.delta.sign())[compared])
