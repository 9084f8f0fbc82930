"""The accuracy against ε, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from advmix_cli.diagnosis.diagnose import Diagnosis
from advmix_cli.evaluation.significance import wilson
from advmix_cli.report.figures import GREY, LINES, as_text, written


def draw(title: str, diagnosis: Diagnosis, directory: Path) -> list[Path]:
    """Write accuracy-against-epsilon.png and .svg into `directory`; nothing if the curve was not tried."""
    curve = next((check.figures["curve"] for check in diagnosis.checks if "curve" in check.figures), None)
    if curve is None:
        return []
    return written({"accuracy-against-epsilon": lambda: _curve(title, curve, diagnosis)}, directory)


def _curve(title: str, curve: Sequence[dict[str, float]], diagnosis: Diagnosis) -> Figure:
    n, chance, epsilon = diagnosis.n, 100 / diagnosis.classes, 255 * diagnosis.epsilon
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    levels = [255 * point["epsilon"] for point in curve]
    spans = [wilson(round(point["accuracy"] * n), n) for point in curve]
    low, high = ([100 * getattr(span, end) for span in spans] for end in ("low", "high"))
    colour, dash, mark = LINES[1]
    axes.fill_between(levels, low, high, color=colour, alpha=0.2, lw=0)
    shares = [100 * point["accuracy"] for point in curve]
    axes.plot(levels, shares, color=colour, linestyle=dash, marker=mark, markersize=4)
    axes.axhline(chance, color=GREY, linewidth=0.8, linestyle=":")
    beside: dict[str, Any] = {"textcoords": "offset points", "color": GREY}
    axes.annotate("chance", (levels[-1], chance), xytext=(0, 3), ha="right", **beside)
    axes.axvline(epsilon, color=GREY, linewidth=0.8)
    axes.annotate("ε of the threat", (epsilon, 100), xytext=(3, -2), va="top", **beside)
    axes.set(xlim=(0, None), ylim=(0, 102), xlabel="ε, levels of 255", ylabel="right under PGD20, %")
    axes.set_title(f"{as_text(title, 50)}: {n:,} test images, with 95% intervals", loc="left", fontsize=9)
    return figure
