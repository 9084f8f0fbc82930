"""A plan as JSON: every number in full, with its unit in its name."""

from collections.abc import Sequence
from typing import Any

from advmix_cli.plan.estimate import Memory
from advmix_cli.plan.forecast import Forecast
from advmix_cli.plan.lines import Line, totals
from advmix_cli.plan.probe import EvaluatorTime, Speed
from advmix_cli.recipe.table import Table


def plan_document(table: Table, lines: Sequence[Line]) -> dict[str, Any]:
    """A record a row, and the totals over them; a number that only a probe gives is null without one."""
    total = totals(lines)
    return {
        "name": table.name,
        "title": table.title,
        "settings": list(table.settings),
        "rows": [_record(line) for line in lines],
        "totals": {
            "epochs": total.epochs,
            "training_flops": total.training_flops,
            "training_seconds": total.training_seconds,
            "evaluation_network_seconds": total.evaluation_seconds,
        },
    }


def _record(line: Line) -> dict[str, Any]:
    outline, counted = line.estimate.outline, line.estimate.cost
    return {
        "row": line.row.name,
        "digest": line.row.recipe.digest(),
        "images": {"train": outline.train, "validation": outline.validation, "test": outline.test},
        "parameters": counted.parameters,
        "forward_flops_per_image": counted.forward,
        "attack_flops_per_epoch": counted.attack,
        "update_flops_per_epoch": counted.update,
        "training_flops": counted.training,
        "epochs": counted.epochs,
        "batches_per_epoch": counted.batches,
        "batch_size": counted.batch_size,
        "estimated_memory": _memory(line.estimate.memory),
        "probe": _probe(line.forecast) if line.forecast else None,
    }


def _memory(memory: Memory) -> dict[str, Any]:
    return {
        "weights_bytes": memory.weights,
        "gradients_bytes": memory.gradients,
        "optimizer_bytes": memory.optimizer,
        "average_bytes": memory.average,
        "casts_bytes": memory.casts,
        "images_bytes": memory.images,
        "activations_bytes": memory.activations,
        "total_bytes": memory.total,
    }


def _probe(forecast: Forecast) -> dict[str, Any]:
    probe = forecast.probe
    return {
        "device": probe.device,
        "training_measured_on": probe.trained,
        **_speed(probe.speed),
        "epoch_seconds": forecast.epoch,
        "validation_network_seconds_per_epoch": forecast.validation,
        "training_seconds": forecast.training,
        "evaluation_measured_on": probe.judged,
        "evaluators": [_evaluator(one) for one in probe.evaluation.evaluators],
        "reports": forecast.reports,
        "evaluation_network_seconds": forecast.evaluation,
    }


def _speed(speed: Speed) -> dict[str, Any]:
    largest = speed.largest
    return {
        "formulation": speed.formulation,
        "preparation_seconds": speed.preparation_seconds,
        "images_per_second": speed.images_per_second,
        "peak_memory_bytes": speed.peak_bytes,
        "largest_batch": largest.batch if largest else None,
        "largest_batch_is": ("tried" if largest.tried else "estimated") if largest else "unknown",
    }


def _evaluator(one: EvaluatorTime) -> dict[str, Any]:
    return {
        "name": one.name,
        "images": one.images,
        "passes_per_image": one.passes,
        "network_seconds": one.seconds,
    }
