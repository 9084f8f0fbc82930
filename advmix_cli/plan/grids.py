"""A plan for a person: costs, and times where it was probed. One row is shown in detail, more are a line each."""

from collections.abc import Sequence

from advmix_cli.plan.estimate import Estimate
from advmix_cli.plan.forecast import Forecast
from advmix_cli.plan.lines import Line, totals
from advmix_cli.plan.probe import Speed
from advmix_cli.recipe.table import Table
from advmix_cli.report.costs import duration, flops, flops_alike, size, three_digits
from advmix_cli.report.grid import Cell, Grid

ESTIMATED = "memory: estimated, of the training's tensors alone; the process, its libraries and workspaces come on top"


def plan_grids(table: Table, lines: Sequence[Line]) -> list[Grid]:
    """What to print, in this order."""
    edited = (f"Edited with --set {' --set '.join(table.settings)}",) if table.settings else ()
    if len(lines) == 1:
        line = lines[0]
        grids = [_cost(table, line.estimate, edited), _memory(line.estimate)]
        return [*grids, _time(line.estimate, line.forecast)] if line.forecast else grids
    probed = [line.forecast for line in lines if line.forecast]
    grids = [_rows_cost(table, lines, edited)]
    return [*grids, _rows_time(lines, probed), _rows_evaluators(probed)] if probed else grids


def _row(*values: str) -> tuple[Cell, ...]:
    return tuple(Cell(value) for value in values)


def _network(estimate: Estimate) -> str:
    return f"{estimate.cost.parameters:,} parameters, a forward pass {flops(estimate.cost.forward)} an image"


# ---- one recipe ----------------------------------------------------------------------------------------------------


def _cost(table: Table, estimate: Estimate, edited: tuple[str, ...]) -> Grid:
    counted = estimate.cost
    images = counted.batches * counted.batch_size
    rows = [
        _row(name, flops(epoch / images), flops(epoch), flops(epoch * counted.epochs))
        for name, epoch in (
            ("attack", counted.attack),
            ("update", counted.update),
            ("total", counted.attack + counted.update),
        )
    ]
    captions = (
        _network(estimate),
        f"{counted.epochs:,} epochs of {counted.batches:,} batches of {counted.batch_size:,} images",
    )
    return Grid(
        table.title or table.name, ("training", "per image", "per epoch", "total"), tuple(rows), (*captions, *edited)
    )


def _memory(estimate: Estimate) -> Grid:
    memory, outline = estimate.memory, estimate.outline
    images = outline.train + outline.validation + outline.test
    rows = (
        _row("weights", size(memory.weights)),
        _row("gradients", size(memory.gradients)),
        _row("optimizer", size(memory.optimizer)),
        *([_row("average of the weights", size(memory.average))] if memory.average else []),
        *([_row("weights in bf16", size(memory.casts))] if memory.casts else []),
        _row(f"{images:,} images", size(memory.images)),
        _row(f"activations of {estimate.cost.batch_size:,} images", size(memory.activations)),
        _row("total", size(memory.total)),
    )
    return Grid("", ("memory", "estimate"), rows, (ESTIMATED,))


def _time(estimate: Estimate, found: Forecast) -> Grid:
    epochs, validation = estimate.cost.epochs, found.validation
    rows = [
        _row("training", duration(found.epoch), duration(epochs * found.epoch)),
        *([_row("validation", _about(validation), _about(epochs * validation))] if validation else []),
        *(
            _row(one.name, _about(one.seconds), _about(found.reports * one.seconds))
            for one in found.probe.evaluation.evaluators
        ),
        _row("total", "", _about(found.training + found.evaluation)),
    ]
    judged = "of the last and of the best epoch" if found.reports == 2 * found.networks else "of one epoch"
    twice = ", as trained and averaged" if found.networks == 2 else ""
    speed = found.probe.speed
    captions = (
        f"training: {three_digits(speed.images_per_second)} images/s, {_fits(speed)}",
        f"compiling and checking it, which is left out: {duration(speed.preparation_seconds)}",
        f"evaluators: the network's passes alone, eager, as if no image broke; on the weights {judged}{twice}",
    )
    return Grid(f"Measured on {found.probe.device}", ("time", "per epoch or once", "total"), tuple(rows), captions)


def _about(time: float) -> str:
    return f"~ {duration(time)}"


def _fits(speed: Speed) -> str:
    parts = [speed.formulation]
    if speed.peak_bytes is not None:
        parts.append(f"peak memory {size(speed.peak_bytes)}")
    if speed.largest:
        how = "tried eagerly" if speed.largest.tried else "estimated from the free memory"
        parts.append(
            f"largest batch that fits {speed.largest.batch:,} of {speed.largest.images:,} training images, {how}"
        )
    return "; ".join(parts)


# ---- a table -------------------------------------------------------------------------------------------------------


def _rows_cost(table: Table, lines: Sequence[Line], edited: tuple[str, ...]) -> Grid:
    costs, total = [line.estimate.cost for line in lines], totals(lines)
    unit, parts = flops_alike([part for one in costs for part in (one.attack, one.update)])
    whole_unit, wholes = flops_alike([*(one.training for one in costs), total.training_flops])
    rows = [
        _row(line.row.name, attack, update, f"{line.estimate.cost.epochs:,}", whole, size(line.estimate.memory.total))
        for line, attack, update, whole in zip(lines, parts[::2], parts[1::2], wholes[:-1], strict=True)
    ]
    rows.append(_row("total", "", "", f"{total.epochs:,}", wholes[-1], ""))
    networks = list(dict.fromkeys(_network(line.estimate) for line in lines))
    captions = (*networks, f"attack, update: {unit} an epoch; training: {whole_unit} in all epochs", ESTIMATED, *edited)
    columns = ("", "attack", "update", "epochs", "training", "memory")
    return Grid(table.title or table.name, columns, tuple(rows), captions)


def _rows_time(lines: Sequence[Line], probed: Sequence[Forecast]) -> Grid:
    rows = [
        _row(
            line.row.name,
            three_digits(found.probe.speed.images_per_second),
            duration(found.epoch),
            duration(found.training),
            _about(found.evaluation),
        )
        for line, found in zip(lines, probed, strict=True)
    ]
    total = totals(lines)
    assert total.training_seconds is not None
    assert total.evaluation_seconds is not None
    rows.append(_row("total", "", "", duration(total.training_seconds), _about(total.evaluation_seconds)))
    speeds = {found.probe.trained: found.probe.speed for found in probed}
    fits: dict[str, list[str]] = {}
    for row, speed in speeds.items():
        fits.setdefault(_fits(speed), []).append(row)
    preparation = duration(sum(speed.preparation_seconds for speed in speeds.values()))
    captions = (
        "epoch: without its validation; training: with it",
        *([f"measured once for rows that take the same time: {', '.join(speeds)}"] if len(speeds) < len(lines) else []),
        *(text if len(fits) == 1 else f"{', '.join(names)}: {text}" for text, names in fits.items()),
        f"compiling and checking what was measured, which is left out: {preparation}",
    )
    columns = ("", "images/s", "epoch", "training", "evaluators")
    return Grid(f"Measured on {probed[0].probe.device}", columns, tuple(rows), captions)


def _rows_evaluators(probed: Sequence[Forecast]) -> Grid:
    different = {found.probe.judged: found.probe.evaluation for found in probed}
    rows = [
        _row(
            one.name if len(different) == 1 else f"{row}: {one.name}",
            f"{one.images:,}",
            f"{one.passes:,}",
            _about(one.seconds),
        )
        for row, evaluation in different.items()
        for one in (evaluation.validation, *evaluation.evaluators)
        if one.images
    ]
    caption = "time: the network's passes alone, eager, as if no image broke; for one set of weights"
    return Grid("", ("evaluator", "images", "passes an image", "time"), tuple(rows), (caption,))
