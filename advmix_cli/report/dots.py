"""An ablation as a picture: a row a line, an evaluator a panel."""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from advmix_cli.report.ablation import Line
from advmix_cli.report.differences import pooled_interval
from advmix_cli.report.figures import GREY, GRID, INK, LINES, as_text

BLUE, ORANGE = LINES[1][0], LINES[4][0]
OTHERS = {"best": ("best epoch", "^"), "averaged last": ("averaged", "s"), "averaged best": ("averaged, best", "P")}
"""What else can have been measured of a training, and its mark under the last epoch's."""


def dot_plot(title: str, columns: Sequence[str], lines: Sequence[Line]) -> Figure | None:
    """The accuracy of each row with its 95% interval (pooled over several seeds, each of them a small ring), the
    paper's number where there is one, and what else was measured of a training. None if nothing was measured."""
    if not any(line.outcomes("last", column) for line in lines for column in columns):
        return None
    others = [one for one in OTHERS if any(line.outcomes(one, column) for line in lines for column in columns)]
    width, height = 2.2 + 1.75 * len(columns), 1.35 + (0.34 + 0.1 * len(others)) * len(lines)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        _panel(axes, column, lines, others)
    panels[0].set_yticks(range(len(lines)), [as_text(line.name, 30) for line in lines])
    panels[0].set_ylim(len(lines) - 0.4, -0.6)
    figure.suptitle(as_text(title, int(11 * width)), x=0.01, ha="left", fontsize=11)
    _legend(figure, _key(lines, columns, others), min(5, 1 + len(columns)))
    return figure


def _legend(figure: Figure, key: Sequence[Line2D], most: int) -> None:
    """In as many columns, `most` at most, as the figure has room for: a row's name can be long."""
    for columns in range(most, 0, -1):
        legend = figure.legend(
            handles=key, loc="outside lower left", ncol=columns, frameon=False, fontsize=9, labelcolor=INK
        )
        if legend.get_window_extent().width <= figure.bbox.width:
            return
        if columns > 1:
            legend.remove()


def _panel(axes: Axes, column: str, lines: Sequence[Line], others: Sequence[str]) -> None:
    axes.set_title(as_text(column, 22), loc="left", fontsize=10)
    axes.set_xlabel("% right")
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    for at, line in enumerate(lines):
        axes.axhline(at, color=GRID, linewidth=0.6, zorder=0)
        found = [100 * outcome.accuracy for outcome in line.outcomes("last", column)]
        if found:
            _last_epoch(axes, at, line, column, found)
        if column in line.paper:
            axes.plot(line.paper[column], at, "D", color=ORANGE, markersize=7.5, markerfacecolor="none", zorder=4)
        for below, selection in enumerate(others, 1):
            rest = [100 * outcome.accuracy for outcome in line.outcomes(selection, column)]
            if rest:
                mark = OTHERS[selection][1]
                axes.plot(statistics.fmean(rest), at + 0.22 * below, mark, color=GREY, markersize=5, zorder=3)
    if first := lines[0].outcomes("last", column):
        mean = 100 * statistics.fmean(outcome.accuracy for outcome in first)
        axes.axvline(mean, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    axes.margins(x=0.08)
    axes.set_xlim(right=min(axes.get_xlim()[1], 101))


def _last_epoch(axes: Axes, at: int, line: Line, column: str, found: Sequence[float]) -> None:
    mean = statistics.fmean(found)
    outcomes = line.outcomes("last", column)
    interval = outcomes[0].interval if len(found) == 1 else pooled_interval(list(line.right("last", column).values()))
    if interval:
        axes.plot([100 * interval.low, 100 * interval.high], [at, at], color=BLUE, linewidth=2, zorder=2)
    if len(found) > 1:
        axes.plot(found, [at - 0.2] * len(found), "o", color=INK, markersize=3.2, markerfacecolor="none",
                  markeredgewidth=0.8, zorder=3)  # fmt: skip
    axes.plot(mean, at, "o", color=BLUE, markersize=6.5, zorder=3)


def _key(lines: Sequence[Line], columns: Sequence[str], others: Sequence[str]) -> list[Line2D]:
    counts = {len(line.outcomes("last", column)) for line in lines for column in columns} - {0}
    several = max(counts, default=0) > 1
    one = " (of one seed: of its images alone)" if 1 in counts else ""
    what = f"mean, pooled 95% interval{one}" if several else "last epoch, 95% interval"
    found = [Line2D([], [], color=BLUE, marker="o", markersize=6.5, linewidth=2, label=what)]
    if several:
        found.append(_mark(INK, "o", 3.2, "one seed", hollow=True))
    found.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), label=as_text(lines[0].name, 30)))
    found += [_mark(GREY, OTHERS[one][1], 5, f"{OTHERS[one][0]}{_chosen_on_test(lines, one)}") for one in others]
    if any(column in line.paper for line in lines for column in columns):
        found.append(_mark(ORANGE, "D", 7.5, "the paper's", hollow=True))
    return found


def _chosen_on_test(lines: Sequence[Line], selection: str) -> str:
    """A stamp, if any row's is so."""
    entries = [entry for line in lines for run in line.runs if run and (entry := run.of(selection))]
    return ", TEST-SELECTED" if any(entry.test_selected for entry in entries) else ""


def _mark(colour: str, mark: str, size: float, label: str, *, hollow: bool = False) -> Line2D:
    face = "none" if hollow else colour
    return Line2D([], [], color=colour, marker=mark, markersize=size, markerfacecolor=face, linestyle="", label=label)
