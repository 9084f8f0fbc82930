"""A benchmark as two tables: the arms, and how many times as fast the engine's are."""

from advmix_cli.bench.arms import Arm
from advmix_cli.bench.bench import Bench
from advmix_cli.bench.race import Spread
from advmix_cli.report.costs import duration, flops, size
from advmix_cli.report.grid import Cell, Grid


def grids(found: Bench) -> list[Grid]:
    """For a terminal, or a file."""
    return [_arms(found), *([_ratios(found)] if found.ratios() else [])]


def _arms(found: Bench) -> Grid:
    counted, peaks = found.cost, found.peaks
    rounds = len(next(iter(found.race.seconds.values())))
    memory = bool(found.peak_bytes)
    columns = ("", "ms/batch", "images/s", "s/epoch", "MFU", *(["memory"] if memory else []))
    captions = [
        f"{found.device}; {', '.join(f'{name} {version}' for name, version in found.versions.items())}",
        f"batch {counted.batch_size}, K = {counted.inner_steps}, {counted.parameters:,} parameters, "
        f"a forward pass {flops(counted.forward)} an image",
        f"median of {rounds} rounds and their range, batches a round: {found.race.batches}; images of noise",
        f"under s/epoch: {counted.epochs} epochs, without compilation, validation and evaluation",
        f"MFU: the method's {found.passes} passes · images/s over the measured peak of the arm's precision",
        f"peaks: {flops(peaks.fp32)}/s in fp32, {flops(peaks.bf16)}/s in bf16, copy {size(peaks.copy)}/s",
        f"the process held at most {size(found.process_bytes)}",
        f"training would be {found.default}",
    ]
    for arm in found.arms:
        if arm.name in found.compiled and arm.prepared:
            times = found.compiled[arm.name]
            captions.append(
                f"{arm.name}: {times.graphs}, {times.cold:.1f} s to compile, {times.warm:.1f} s from the "
                f"cache; {arm.prepared.difference}"
            )
    if found.recipe.loss.trades_beta is not None:
        captions.append("the field's loops train without TRADES, and so with fewer passes than their MFU counts")
    captions += [f"{name}: cannot be measured: {why}" for name, why in found.missing.items()]
    rows = [_row(found, arm, memory=memory) for arm in found.arms]
    return Grid(
        f"bench: {found.recipe.title}" if found.recipe.title else "bench", columns, tuple(rows), tuple(captions)
    )


def _row(found: Bench, arm: Arm, *, memory: bool) -> tuple[Cell, ...]:
    spread = found.race.spread(arm.name)
    layout = ", channels_last" if arm.channels_last else ""
    needs = found.peak_bytes.get(arm.name)
    return (
        Cell(arm.name, (arm.precision + layout,)),
        Cell(_number(1e3 * spread.median), (f"{_number(1e3 * spread.low)}–{_number(1e3 * spread.high)}",)),
        Cell(_number(found.images_per_second(arm))),
        Cell(_number(found.epoch_seconds(arm)), (duration(found.training_seconds(arm)),)),
        Cell(f"{100 * found.utilisation(arm):.1f} %"),
        *([Cell("" if needs is None else size(needs))] if memory else []),
    )


def _ratios(found: Bench) -> Grid:
    """A row for each loop of the field, of four, and a column for each arm of the engine, of four."""
    ratios = found.ratios()
    rows = [(Cell(other), *(_times(ratios[own, other]) for own in found.ours)) for other in found.loops]
    caption = "how many times as fast as the loop on the left: median of the rounds' own ratios, and their range"
    return Grid("", ("times as fast as", *found.ours), tuple(rows), (caption,))


def _times(spread: Spread) -> Cell:
    return Cell(f"{spread.median:.2f}", (f"{spread.low:.2f}–{spread.high:.2f}",))


def _number(value: float) -> str:
    """Three digits, or all that stand before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
