"""A benchmark as tables: the arms, how many times as fast the engine's are, and where the time of a batch goes."""

import re

from advmix_cli.bench.arms import Arm
from advmix_cli.bench.bench import Bench
from advmix_cli.bench.race import Spread
from advmix_cli.report.costs import duration, flops, size, three_digits
from advmix_cli.report.grid import Cell, Grid

LONGEST = 8
"""Operations of an arm that are shown; the document has all."""
LETTERS = 50


def grids(found: Bench) -> list[Grid]:
    """For a terminal, or a file."""
    profiles = [_profiles(found), *(_longest(found, arm) for arm in found.arms)] if found.profiles else []
    return [_arms(found), *([_ratios(found)] if found.ratios() else []), *profiles]


def _arms(found: Bench) -> Grid:
    counted, peaks = found.cost, found.peaks
    many = found.race.rounds > 1
    rounds = f"median of {found.race.rounds} rounds and their range" if many else "one round"
    rounds += " before it was stopped" if found.race.stopped else ""
    memory = bool(found.peak_bytes)
    columns = ("", "ms/batch", "images/s", "s/epoch", "MFU", *(["memory"] if memory else []))
    captions = [
        f"{found.device}; {', '.join(f'{name} {version}' for name, version in found.versions.items())}",
        f"batch {counted.batch_size}, K = {counted.inner_steps}, {counted.parameters:,} parameters, "
        f"a forward pass {flops(counted.forward)} an image",
        f"{rounds}; batches a round: {found.race.batches}; images of noise",
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
                f"{arm.name}: {times.graphs}, {times.cold:.1f} s to compile, {times.warm:.1f} s when that was done; "
                f"{arm.prepared.difference}"
            )
    if found.recipe.loss.trades_beta is not None:
        captions.append("the field's loops train without TRADES, and so with fewer passes than their MFU counts")
    captions += [f"{name}: cannot be measured: {why}" for name, why in found.missing.items()]
    rows = [_row(found, arm, memory=memory) for arm in found.arms]
    return Grid(
        f"bench: {found.recipe.title}" if found.recipe.title else "bench", columns, tuple(rows), tuple(captions)
    )


def _row(found: Bench, arm: Arm, *, memory: bool) -> tuple[Cell, ...]:
    median, low, high = (three_digits(1e3 * seconds) for seconds in found.race.spread(arm.name))
    layout = ", channels_last" if arm.channels_last else ""
    needs = found.peak_bytes.get(arm.name)
    return (
        Cell(arm.name, (arm.precision + layout,)),
        Cell(median, (f"{low}–{high}",) if found.race.rounds > 1 else ()),
        Cell(three_digits(found.images_per_second(arm))),
        Cell(three_digits(found.epoch_seconds(arm)), (duration(found.training_seconds(arm)),)),
        Cell(f"{100 * found.utilisation(arm):.1f} %"),
        *([Cell("" if needs is None else size(needs))] if memory else []),
    )


def _ratios(found: Bench) -> Grid:
    """A row for each loop of the field, of four, and a column for each arm of the engine, of four."""
    ratios = found.ratios()
    many = found.race.rounds > 1
    rows = [(Cell(other), *(_times(ratios[own, other], many=many) for own in found.ours)) for other in found.loops]
    caption = "how many times as fast as the loop on the left" + (
        ": median of the rounds' own ratios, and their range" if many else ""
    )
    return Grid("", ("times as fast as", *found.ours), tuple(rows), (caption,))


def _profiles(found: Bench) -> Grid:
    columns = ("where a batch goes", "products", "other operations", "none", "operations", "MFU of products")
    captions = (
        "products: convolutions and matrix products, in both directions; in ms of a batch that was looked at",
        "none: no operation was running, so the device waited for the host, or for the loader",
        "MFU of products: what MFU would be if a batch took no longer than they do",
        *(f"{name}: the profiler saw no product" for name, seen in found.profiles.items() if not seen.products),
    )
    seen = [arm for arm in found.arms if found.profiles[arm.name].products]
    return Grid("", columns, tuple(_parts(found, arm) for arm in seen), captions)


def _parts(found: Bench, arm: Arm) -> tuple[Cell, ...]:
    profile = found.profiles[arm.name]
    products, others = profile.products, profile.others

    def share(seconds: float) -> Cell:
        return Cell(three_digits(1e3 * seconds), (f"{100 * seconds / profile.seconds:.0f} %",))

    return (
        Cell(arm.name),
        share(products),
        share(others),
        share(max(0.0, profile.seconds - products - others)),
        Cell(f"{profile.calls:,.0f}"),
        Cell(f"{100 * found.products_utilisation(arm):.1f} %"),
    )


def _longest(found: Bench, arm: Arm) -> Grid:
    profile = found.profiles[arm.name]
    rows = [
        (Cell(_short(one.name)), Cell(three_digits(1e3 * one.seconds)), Cell(f"{one.calls:,.0f}"))
        for one in profile.operations[:LONGEST]
    ]
    return Grid("", (f"{arm.name}: longest operations", "ms/batch", "a batch"), tuple(rows))


def _short(name: str) -> str:
    """A kernel's name without its types, in so many letters that a line holds it."""
    name = re.sub(r"^void |<.*", "", name)
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"


def _times(spread: Spread, *, many: bool) -> Cell:
    return Cell(f"{spread.median:.2f}", (f"{spread.low:.2f}–{spread.high:.2f}",) if many else ())
