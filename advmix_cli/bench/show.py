"""A benchmark as two tables: the arms, and how many times as fast the engine's are."""

from advmix_cli.bench.arms import Arm
from advmix_cli.bench.bench import BASELINES, Bench
from advmix_cli.bench.race import Spread
from advmix_cli.report.grid import Cell, Grid


def grids(found: Bench) -> list[Grid]:
    """For a terminal, or a file."""
    return [_arms(found), _ratios(found)]


def _arms(found: Bench) -> Grid:
    counted, peaks = found.cost, found.peaks
    rounds = len(next(iter(found.race.seconds.values())))
    memory = bool(found.peak_bytes)
    columns = ("", "ms a batch", "images/s", "s an epoch", "utilisation", *(["peak GiB"] if memory else []))
    captions = [
        f"{found.device}; {', '.join(f'{name} {version}' for name, version in found.versions.items())}",
        f"batch {counted.batch_size}, K = {counted.inner_steps}, {counted.parameters:,} parameters, "
        f"{counted.forward / 1e9:.4g} GFLOP a forward pass of an image",
        f"median of {rounds} rounds of {found.race.batches} batches, and the range; images of noise",
        f"peaks: {_rate(peaks.fp32)} in fp32, {_rate(peaks.bf16)} in bf16, copy {peaks.copy / 1e9:,.0f} GB/s",
        f"utilisation: (2K + 3) passes · images/s over the peak of the arm's precision; the process held at most "
        f"{found.process_bytes / 2**30:.1f} GiB",
        f"training takes {found.default}",
    ]
    for arm in found.arms:
        if arm.name in found.compiled and arm.prepared:
            times = found.compiled[arm.name]
            captions.append(
                f"{arm.name}: {arm.prepared.compilation}, {times.cold:.1f} s to compile, {times.warm:.1f} s from the "
                f"cache; {arm.prepared.difference}; {arm_hours(found, arm)} for the recipe's {counted.epochs} epochs"
            )
    captions += [f"{name}: cannot be measured: {why}" for name, why in found.missing.items()]
    rows = [_row(found, arm, memory=memory) for arm in found.arms]
    return Grid(
        f"bench: {found.recipe.title}" if found.recipe.title else "bench", columns, tuple(rows), tuple(captions)
    )


def _row(found: Bench, arm: Arm, *, memory: bool) -> tuple[Cell, ...]:
    spread = found.race.spread(arm.name)
    layout = ", channels_last" if arm.channels_last else ""
    return (
        Cell(arm.name, (arm.precision + layout,)),
        Cell(_number(1e3 * spread.median), (f"{_number(1e3 * spread.low)}–{_number(1e3 * spread.high)}",)),
        Cell(_number(found.images_per_second(arm))),
        Cell(_number(found.epoch_seconds(arm))),
        Cell(f"{100 * found.utilisation(arm):.1f} %"),
        *([Cell(f"{found.peak_bytes[arm.name] / 2**30:.2f}")] if memory else []),
    )


def arm_hours(found: Bench, arm: Arm) -> str:
    """The training of the recipe, for a reader."""
    hours = found.training_hours(arm)
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _ratios(found: Bench) -> Grid:
    ratios = found.ratios()
    ours = [arm.name for arm in found.arms if arm.prepared]
    rows = [(Cell(own), *(_times(ratios[own, other]) for other in BASELINES)) for own in ours]
    caption = "median of the rounds' own ratios, and their range"
    return Grid("times as fast as", ("", *BASELINES), tuple(rows), (caption,))


def _times(spread: Spread) -> Cell:
    return Cell(f"{spread.median:.2f}", (f"{spread.low:.2f}–{spread.high:.2f}",))


def _rate(flops: float) -> str:
    return f"{flops / 1e12:,.3g} TFLOP/s"


def _number(value: float) -> str:
    """Three digits, or all that stand before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
