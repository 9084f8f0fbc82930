"""A training as a picture, and those of the rows of a table."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from advmix_cli.report.figures import GREY, GRID, INK, LINES, as_text
from advmix_cli.report.metrics import AVERAGE, PRISTINE, ROBUST, Epochs, Gap, collapsed, curve, drops, gap

MARKS = 12
"""On a line, at most."""


def training_curves(
    title: str, epochs: Epochs, planned: int | None = None, on: str = "validation images"
) -> Figure | None:
    """Loss, accuracy `on` the images that it was validated on, and learning rate by epoch, with its drops, collapses,
    and the gap between the best robust accuracy and the last; `planned` epochs are the width. None without an epoch."""
    if not epochs:
        return None
    judged = bool(curve(epochs, ROBUST)[0])
    figure = Figure(figsize=(6.6, 6.0 if judged else 4.0), layout="constrained")
    axes = figure.subplots(3 if judged else 2, sharex=True, height_ratios=[1, 1.5, 0.6] if judged else [1, 0.6])
    known = gap(epochs, ROBUST)
    heading = as_text(title, 66)
    figure.suptitle(f"{heading}\n{said(known)}" if known else heading, x=0.01, ha="left", fontsize=10.5)
    _losses(axes[0], epochs)
    if judged:
        _accuracies(axes[1], epochs, on)
    _rate(axes[-1], epochs)
    last = max(planned or 0, epochs[-1]["epoch"])
    for one in axes:
        one.grid(axis="y", color=GRID, linewidth=0.6)
        for epoch in drops(epochs):
            one.axvline(epoch, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
    axes[-1].set_xlim(1 - 0.02 * last, last * 1.02 + 0.1)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 2.5, 5, 10]))
    axes[-1].set_xlabel("epoch")
    return figure


def _line(axes: Axes, epochs: Epochs, name: str, style: int, label: str, scale: float = 1, width: float = 1.6) -> None:
    numbers, values = curve(epochs, name)
    if not numbers:
        return
    colour, dashes, mark = LINES[style]
    axes.plot(
        numbers, [scale * value for value in values], color=colour, linestyle=dashes, marker=mark, markersize=4.5,
        markevery=max(1, len(numbers) // MARKS), linewidth=width, label=label,
    )  # fmt: skip


def _key(axes: Axes) -> None:
    """Above the panel, where no line is."""
    count = len(axes.get_legend_handles_labels()[1])
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncol=count if count < 4 else (count + 1) // 2, frameon=False,
        fontsize=9, handlelength=2.6, columnspacing=1.4, borderaxespad=0.1, labelcolor=INK,
    )  # fmt: skip


def _losses(axes: Axes, epochs: Epochs) -> None:
    _line(axes, epochs, "loss", 0, "loss", width=3)
    _line(axes, epochs, "inner_loss_before", 1, "the adversary's, at its first step")
    _line(axes, epochs, "inner_loss_after", 4, "and at its last")
    axes.set_ylabel("loss")
    _key(axes)


def _accuracies(axes: Axes, epochs: Epochs, on: str) -> None:
    _line(axes, epochs, PRISTINE, 3, "pristine", 100)
    _line(axes, epochs, ROBUST, 0, "under PGD", 100)
    _line(axes, epochs, AVERAGE + PRISTINE, 2, "pristine, averaged", 100)
    _line(axes, epochs, AVERAGE + ROBUST, 1, "under PGD, averaged", 100)
    numbers, values = curve([line for line in epochs if line["epoch"] in collapsed(epochs)], ROBUST)
    if numbers:
        axes.plot(numbers, [100 * value for value in values], "X", color=LINES[4][0], markersize=10, label="collapsed")
    axes.set_ylabel(f"% of {on}")
    axes.set_ylim(0, 102)
    _key(axes)
    if known := gap(epochs, ROBUST):
        _mark(axes, known)


def said(known: Gap) -> str:
    """The gap in words."""
    best = f"under PGD: best epoch {known.best} with {100 * known.highest:.1f} %"
    if known.best == known.last:
        return f"{best}, which is the last one"
    return f"{best}, last epoch {known.last} with {100 * known.final:.1f} %: gap {100 * known.value:.1f} points"


def _mark(axes: Axes, known: Gap) -> None:
    """A ring around the best epoch, and the height between it and the last one."""
    highest, final = 100 * known.highest, 100 * known.final
    axes.plot([known.best], [highest], "o", color=INK, markersize=10, markerfacecolor="none", markeredgewidth=1.2)
    if known.value > 0:
        colour, beside = LINES[4][0], known.last + 0.012 * known.last
        axes.plot([known.best, beside], [highest, highest], color=GREY, linewidth=0.9, linestyle=":")
        axes.plot([beside] * 2, [final, highest], color=colour, linewidth=2.5, marker="_", markersize=7, clip_on=False)


def _rate(axes: Axes, epochs: Epochs) -> None:
    _line(axes, epochs, "lr", 0, "lr")
    axes.set_ylabel("learning rate")
    rates = curve(epochs, "lr")[1]
    if drops(epochs) and min(rates) > 0:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, None)


# ---- the rows of a table -------------------------------------------------------------------------------------------

ACROSS = 4
SHOWN = {PRISTINE: (3, "as they are"), ROBUST: (0, "under PGD")}
"""Of each row: how its line looks, and what it is called."""


def row_curves(title: str, rows: Sequence[tuple[str, Sequence[Epochs]]]) -> Figure | None:
    """The validation accuracy of every row that has any, a panel each, all on one scale: a thin line a seed, the thick
    one their mean. None if no row has any."""
    there = [(name, begun) for name, seeds in rows if (begun := [one for one in seeds if curve(one, ROBUST)[0]])]
    if not there:
        return None
    across = min(ACROSS, len(there))
    down = -(-len(there) // across)
    figure = Figure(figsize=(max(4.5, 2.3 * across), 0.7 + 2.3 * down), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    figure.suptitle(as_text(title, int(24 * across)), x=0.01, ha="left", fontsize=11)
    panels = list(grid.flat)
    for axes, (name, seeds) in zip(panels, there, strict=False):
        _row(axes, name, seeds)
    for axes in panels[len(there) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("% right")
    highest = max(value for _, seeds in there for one in seeds for name in SHOWN for value in curve(one, name)[1])
    panels[0].set_ylim(0, min(102, 110 * highest + 1))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncol=2, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _row(axes: Axes, name: str, seeds: Sequence[Epochs]) -> None:
    axes.set_title(as_text(name, 27), loc="left", fontsize=9.5)
    axes.tick_params(labelbottom=True)  # on every panel: the lowest ones of the columns are not in one line
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    for measure, (style, label) in SHOWN.items():
        colour, dashes, mark = LINES[style]
        for epochs in seeds if len(seeds) > 1 else ():
            numbers, values = curve(epochs, measure)
            axes.plot(numbers, [100 * value for value in values], color=colour, linewidth=0.6, alpha=0.45)
        numbers, means = _mean(seeds, measure)
        every = max(1, len(numbers) // 5)
        axes.plot(
            numbers, means, color=colour, linestyle=dashes, marker=mark, markersize=4, markevery=every, linewidth=1.6,
            label=label,
        )  # fmt: skip


def _mean(seeds: Sequence[Epochs], name: str) -> tuple[list[int], list[float]]:
    """In percent, over the epochs that all have."""
    curves: list[dict[int, float]] = [dict(zip(*curve(epochs, name), strict=True)) for epochs in seeds]
    shared: Any = set.intersection(*(set(one) for one in curves)) if curves else set()
    numbers = sorted(shared)
    return numbers, [100 * sum(one[number] for one in curves) / len(curves) for number in numbers]
