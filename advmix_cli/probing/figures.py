"""A probe as pictures: the path of the loss, where λ went, and pairs of images on their way into the mixture."""

import itertools
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from advmix_cli.method.maximizers import Asked, Integrated
from advmix_cli.method.mixing import Mixture, interpolate
from advmix_cli.probing.compare import Standing
from advmix_cli.probing.look import label_ratio
from advmix_cli.probing.perturbation import Perturbation, roles
from advmix_cli.probing.probe import Probe
from advmix_cli.report.figures import GREY, GRID, LINES, as_text, written
from advmix_cli.report.tables import levels

SHOWN = 6
"""Pairs."""


def draw(found: Probe, directory: Path) -> list[Path]:
    """Write loss-path, mixing-ratio and pairs, as PNG and as SVG: the same bytes for the same probe and versions.
    Without a perturbation there are no pairs, and λ is drawn where it is learned."""
    drawn = {
        "loss-path": lambda: loss_path(found),
        "mixing-ratio": lambda: mixing_ratio(found),
        "pairs": lambda: pairs(found),
    }
    return written(drawn, directory)


# ---- the path of the loss ------------------------------------------------------------------------------------------


def loss_path(found: Probe) -> Figure:
    """The mean objective of each algorithm at the start and after each step. What took the same path is one line."""
    figure = Figure(figsize=(6.6, 3.8), layout="constrained")
    axes = figure.add_subplot()
    together: dict[tuple[float, ...], list[Standing]] = {}
    for standing in found.standings:
        together.setdefault(standing.path, []).append(standing)
    lines = dict(zip((standing.name for standing in found.standings), LINES, strict=True))
    ends: list[tuple[float, str, str, bool]] = []
    for path, group in together.items():
        colour, dashes, mark = lines[group[0].name]
        own = any(standing.own for standing in group)
        every = max(1, (len(path) - 1) // 10)
        axes.plot(
            range(len(path)), path, color=colour, linestyle=dashes, marker=mark, markersize=4.5, markevery=every,
            linewidth=2.4 if own else 1.4, markerfacecolor=colour if own else "white", clip_on=False,
        )  # fmt: skip
        name = ", ".join(standing.name for standing in group)
        ends.append((path[-1], f"{name} (this recipe's)" if own else name, colour, own))
    last = len(found.standings[0].path) - 1
    axes.set_xlim(0, max(last, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("steps of the ascent")
    axes.set_ylabel("inner loss, mean of the batch")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_title(_title(found, f"{len(found.x):,} images, {found.network}"), loc="left", fontsize=9)
    _label(axes, last, ends)
    return figure


def _label(axes: Axes, last: int, ends: list[tuple[float, str, str, bool]]) -> None:
    """Names at the ends of their lines, moved apart where they would touch."""
    low, high = axes.get_ylim()
    ends = sorted(ends)
    heights = _apart([value for value, *_ in ends], 0.065 * (high - low), high)
    for (value, name, colour, own), height in zip(ends, heights, strict=True):
        axes.annotate(
            name, (last, value), xytext=(last + 0.05 * max(last, 1), height), color="#222222", va="center",
            fontsize=8.5, fontweight="bold" if own else "normal", annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": colour, "linewidth": 0.8, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 4,
            },
        )  # fmt: skip


def _apart(values: list[float], room: float, high: float) -> list[float]:
    """Ascending numbers moved up where they are nearer than `room`, and down where that takes them above `high`."""
    heights = list(itertools.accumulate(values, lambda below, value: max(value, below + room)))
    down = itertools.accumulate(reversed(heights), lambda above, height: min(height, above - room), initial=high + room)
    return list(down)[:0:-1]


def _title(found: Probe, rest: str) -> str:
    return f"{as_text(found.recipe.title, 50)}: {rest}" if found.recipe.title else rest


# ---- λ -------------------------------------------------------------------------------------------------------------


def mixing_ratio(found: Probe) -> Figure | None:
    """λ of each pair after the ascent over λ before it; on the line it has not moved. None where it is not learned."""
    maximizer = found.climb.maximizer
    if not isinstance(maximizer, Integrated) or not maximizer.learned:
        return None
    before, after = (values.flatten().double().cpu() for values in (found.climb.ratio_before, found.climb.found.ratio))
    least = maximizer.learned.kappa
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    axes.plot([least, 1], [least, 1], color=GREY, linestyle="--", linewidth=0.8)
    fell = after < before
    for chosen, mark, face, name in (
        (fell, "v", "#0072B2", f"fell: {int(fell.sum())} of {len(before)}"),
        (~fell, "^", "white", f"rose or stayed: {int((~fell).sum())}"),
    ):
        axes.plot(
            before[chosen].numpy(), after[chosen].numpy(), linestyle="", marker=mark, markersize=5,
            markeredgecolor="#0072B2", markerfacecolor=face, alpha=0.8, clip_on=False, label=name,
        )  # fmt: skip
    axes.set_xlabel("λ before the ascent")
    axes.set_ylabel("λ after it")
    axes.set_xlim(least, 1)
    axes.set_ylim(least, 1)
    axes.grid(color=GRID, linewidth=0.6)
    axes.legend(loc="upper left", frameon=False, fontsize=8.5)
    means = f"mean {before.mean():.3f} → {after.mean():.3f}; κ = {least:g}"
    axes.set_title(f"{_title(found, found.network)}\n{means}", loc="left", fontsize=9)
    return figure


# ---- pairs of images -----------------------------------------------------------------------------------------------


def pairs(found: Probe) -> Figure | None:
    """The first images that are not mixed with themselves: x_i, x_j, their δ, and what is trained on; what the method
    does not have has no column. δ is scaled so that ±ε is the whole range. None where there is no δ."""
    left, right = roles(found.climb)
    if left is None:
        return None
    partner = found.climb.draws.permutation
    mixed = bool((partner != torch.arange(len(partner), device=partner.device)).any())
    chosen = _chosen(partner) if mixed else torch.arange(min(SHOWN, len(partner)))
    columns = _columns(found, left, right, mixed)
    captions = [_caption(found, index, mixed) for index in chosen.tolist()]
    longest = max(len(line) for caption in captions for line in caption.split("\n"))
    figure = Figure(
        figsize=(1.05 * len(columns) + 0.25 + 0.065 * longest, 1.05 * len(chosen) + 0.75),
        layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.02, wspace=0.01, hspace=0.01),
    )
    grid = figure.subplots(len(chosen), len(columns), squeeze=False)
    for row, index, caption in zip(grid, chosen.tolist(), captions, strict=True):
        for axes, (values, span) in zip(row, columns.values(), strict=True):
            _show(axes, values[index], span)
        row[-1].text(1.08, 0.5, caption, transform=row[-1].transAxes, va="center", fontsize=7.5, linespacing=1.35)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=9)
    epsilon = found.recipe.threat.epsilon
    scale = "blue −ε, white 0, red +ε" if found.x.shape[1] == 1 else "grey 0, a channel at −ε dark, at +ε bright"
    figure.suptitle(f"{_title(found, found.network)}\nδ: {scale}; ε = {levels(epsilon)}", x=0.01, ha="left", fontsize=9)
    return figure


def _chosen(partner: Tensor) -> Tensor:
    others = partner != torch.arange(len(partner), device=partner.device)
    return others.nonzero().squeeze(1)[:SHOWN].cpu()


def _columns(
    found: Probe, left: Perturbation, right: Perturbation | None, mixed: bool
) -> dict[str, tuple[Tensor, float | None]]:
    """Images (B, C, H, W) by their heading; those of δ with the ε that they are shown by."""
    partner, epsilon = found.climb.draws.permutation, found.recipe.threat.epsilon
    if not mixed:
        return {"$x$": (found.x, None), "$δ$": (left.delta, epsilon), "$x'$": (_as_images(found.climb.found.x), None)}
    images: dict[str, tuple[Tensor, float | None]] = {
        "$x_i$": (found.x, None),
        "$x_j$": (found.x[partner], None),
    }
    if right is None:
        images["$δ$ of $x_m$"] = (left.delta, epsilon)
    else:
        images |= {"$δ_i$": (left.delta, epsilon), "$δ_j$": (right.delta, epsilon)}
    asked = found.climb.found.x
    heading = f"$x'_m$, stage {asked.stages}" if isinstance(asked, Mixture) else "$x'_m$"
    return images | {heading: (_as_images(asked), None)}


def _as_images(asked: Asked) -> Tensor:
    """Pairs that the network mixes within are shown as if their images were mixed."""
    return interpolate(asked.left, asked.right, asked.ratio) if isinstance(asked, Mixture) else asked


def _show(axes: Axes, image: Tensor, span: float | None) -> None:
    """(C, H, W): a picture, or with a `span` what is in ± of it."""
    channels = image.permute(1, 2, 0).cpu()
    if span is None:
        axes.imshow(channels.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    elif channels.shape[2] == 1:
        axes.imshow(channels.numpy(), cmap="RdBu_r", vmin=-(span or 1), vmax=span or 1, interpolation="nearest")
    else:
        axes.imshow((channels / (2 * (span or 1)) + 0.5).clamp(0, 1).numpy(), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5, color="#888888")


def _caption(found: Probe, index: int, mixed: bool) -> str:
    """The classes, and λ before and after, and of the label where that is another one."""
    climb, label = found.climb, found.y.argmax(dim=1)
    own = as_text(found.classes[label[index]], 12)
    if not mixed:
        return own
    other = as_text(found.classes[label[climb.draws.permutation[index]]], 12)
    before, after = (_at(values, index) for values in (climb.ratio_before, climb.found.ratio))
    moved = f"λ {before:.2f}" if before == after else f"λ {before:.2f} → {after:.2f}"
    shown, there = label_ratio(climb, found.y)
    of_label = float(shown[index])
    separate = bool(there[index]) and abs(of_label - after) > 1e-6
    return "\n".join([f"{own} + {other}", moved, *([f"$λ_y$ {of_label:.2f}"] if separate else [])])


def _at(values: Tensor, index: int) -> float:
    """Of one image, or of all."""
    return float(values.to(torch.float32)[index if len(values) > 1 else 0])
