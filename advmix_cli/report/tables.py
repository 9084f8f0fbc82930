"""Results -> grids and records. Accuracies are shown in percent, intervals are Wilson's at 95%."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from advmix_cli.evaluation.outcome import Outcome
from advmix_cli.evaluation.pgd import falls_short
from advmix_cli.evaluation.significance import Interval
from advmix_cli.machine import said
from advmix_cli.report.differences import Difference, p_value
from advmix_cli.report.grid import Cell, Grid
from advmix_cli.report.metrics import collapsed_in
from advmix_cli.report.results import Measured


def percent(fraction: float) -> str:
    """As it is shown: one decimal, of some hundred or thousand images."""
    return f"{100 * fraction:.1f}"


def beside_published(accuracy: float, published: float) -> str:
    """ "paper 58.34, -0.04": the number in percent as it was given, and ours minus it with as many decimals."""
    text = str(float(published))
    return f"paper {text}, {100 * accuracy - published:+.{len(text.partition('.')[2])}f}"


def levels(pixels: float) -> str:
    """ "8/255"; what lies between two levels of grey has decimals."""
    return f"{255 * pixels:.6g}/255"


def interval(outcome: Outcome) -> str:
    """That of its accuracy, in percent."""
    return spanned(outcome.interval)


def spanned(interval: Interval, decimals: int = 1) -> str:
    """Low and high, in percent. A number below 0 has a sign that looks like the dash between the two."""
    between = "–" if interval.low >= 0 else " to "
    return f"{100 * interval.low:.{decimals}f}{between}{100 * interval.high:.{decimals}f}"


def _beside_zero(interval: Interval) -> str:
    """As `spanned`, with as many decimals as it takes to see that 0 is not in it."""
    nearest = min(abs(end) for end in interval)
    return spanned(interval, next(many for many in (1, 2, 3, 4) if many == 4 or round(100 * nearest, many)))


def shown(name: str, known: Difference, *, partial: bool = False) -> str:
    """ "NAME +1.2, p 0.03" of a pair, "NAME +1.2 (-0.8 to 3.2), noise" of several; `partial`: of these seeds alone."""
    seeds = f" with {known.seeds} seed{'s' if known.seeds > 1 else ''}" if partial else ""
    found = f"{name} {100 * known.value:+.1f}{seeds}"
    if known.paired:
        found += f", p {p_value(known.paired.p)}"
    elif known.interval.low < known.interval.high:
        found += f" ({(spanned if known.is_noise else _beside_zero)(known.interval)})"
    return f"{found}, noise" if known.is_noise else found


def gap_line(gaps: Mapping[str, Difference]) -> str:
    """Of a run: how much better its best epoch is than its last one."""
    found = "; ".join(shown(f"{name}:", gap) for name, gap in gaps.items())
    return f"robust-overfitting gap, the best epoch minus the last one, in points: {found}"


def seconds(count: float) -> str:
    """A duration for a person."""
    if count < 100:
        return f"{count:.1f} s"
    minutes, rest = divmod(round(count), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def outcome_grid(
    title: str, measured: Measured, machines: Sequence[dict[str, Any]] = (), collapsed: Sequence[int] = ()
) -> Grid:
    """What was found of one set of weights, an evaluator a line, with what each number depends on; `machines` are those
    that trained them, `collapsed` the epochs that did."""
    warning = [TEST_SELECTED] if measured.test_selected else []
    if len(machines) > 1:
        warning.append(f"trained on {len(machines)} machines: {'; '.join(_moves(machines))}")
    if collapsed:
        warning.append(f"COLLAPSED: {collapsed_in(collapsed)}.")
    warning += [said for outcome in measured.outcomes for said in chosen_on(measured, outcome)]
    return outcomes_grid(f"{title} · {measured.selection} epoch ({measured.epoch})", measured.outcomes, warning)


def outcomes_grid(title: str, outcomes: Sequence[Outcome], captions: Sequence[str]) -> Grid:
    """An evaluator a line; under `captions` what each number depends on."""
    rows = [
        (
            Cell(outcome.name),
            Cell(percent(outcome.accuracy)),
            Cell(interval(outcome)),
            Cell(f"{outcome.correct:,}"),
            Cell(f"{outcome.n:,}"),
            Cell(seconds(outcome.seconds)),
        )
        for outcome in outcomes
    ]
    short = [said for outcome in outcomes for said in short_steps(outcome)]
    stamps = [f"{outcome.name}: {stamp(outcome)}{_breaking(outcome)}" for outcome in outcomes]
    return Grid(
        title,
        ("evaluator", "accuracy %", "95% interval", "correct", "n", "time"),
        tuple(rows),
        (*captions, *short, *stamps),
    )


TEST_SELECTED = "TEST-SELECTED: this epoch was chosen on the test images, so its accuracy on them is too high."


def chosen_on(entry: Measured, outcome: Outcome) -> Iterator[str]:
    """Whether the epoch was, on the very images; a choice on test images is stamped on all of an epoch."""
    if outcome.settings.get("split") == "validation" and entry.selection.endswith("best on validation"):
        yield f"{outcome.name}: the best epoch was chosen on these images, so its accuracy on them is too high."


MOST_STEPS = 1_000_000
"""That a recipe can have; a file may say anything."""


def short_steps(outcome: Outcome) -> Iterator[str]:
    """Whether its steps are."""
    steps, step_size, epsilon = (outcome.settings.get(name) for name in ("steps", "step_size", "epsilon"))
    if not (isinstance(steps, int) and isinstance(step_size, float) and isinstance(epsilon, float)):
        return
    if 0 < steps <= MOST_STEPS and falls_short(steps, step_size, epsilon):
        yield f"{outcome.name}: its steps do not lead to the edge of the ball, so the accuracy may be too high."


def _breaking(outcome: Outcome) -> str:
    """Which attack broke how many, where there were several."""
    by = {name: count for name, count in outcome.broken.items() if name != "clean"}
    return f"; broken by {', '.join(f'{name} {count:,}' for name, count in by.items())}" if len(by) > 1 else ""


def stamp(outcome: Outcome) -> str:
    """All the settings of an outcome, on one line: "split test, norm linf, epsilon 8/255, ..."."""
    return ", ".join(f"{key} {setting(key, value)}" for key, value in outcome.settings.items())


def setting(key: str, value: object) -> str:
    """The value of a setting, pixels as fractions of 255."""
    if isinstance(value, list):
        return "+".join(str(item) for item in value)
    if key in ("epsilon", "step_size") and isinstance(value, float) and 0 <= value <= 1:
        return levels(value)
    return str(value)


def _moves(machines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What each machine has that another one has not, and since when."""
    names = dict.fromkeys(name for machine in machines for name in machine if not name.startswith("from_"))
    differ = [name for name in names if len({said(machine, name) for machine in machines}) > 1]
    for machine in machines:
        what = ", ".join(f"{name} {said(machine, name)}" for name in differ)
        yield f"{what} from epoch {machine['from_epoch']}"
