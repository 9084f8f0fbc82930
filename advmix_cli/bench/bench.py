"""A benchmark from beginning to end."""

import resource
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from advmix_cli import build, engine, fitting, machine
from advmix_cli.bench import peaks
from advmix_cli.bench.arms import (
    ARMS,
    LOOPS,
    Arm,
    Precision,
    engine_arm,
    fresh,
    pictures,
    textbook_arms,
)
from advmix_cli.bench.compiling import Compiled, compiled_arms
from advmix_cli.bench.peaks import Peaks
from advmix_cli.bench.profile import Profile, profile
from advmix_cli.bench.race import Race, Spread, race
from advmix_cli.bench.textbook import check_sockets
from advmix_cli.clock import wait
from advmix_cli.cost import Cost, cost
from advmix_cli.data.images import Dataset
from advmix_cli.data.outline import Outline
from advmix_cli.engine import Difference, Prepared, candidates
from advmix_cli.errors import DeviceError, EngineError, MemoryExhaustedError
from advmix_cli.memory import is_out_of_memory, release
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.progress import Watcher
from advmix_cli.training.accelerate import Formulation, Replayed

PROFILED = 5
"""Batches that are looked at together at most: a profile of many is slow to read."""


@dataclass(frozen=True)
class Bench:
    """Everything that was measured. `missing`: arms that could not run, and why. `peak_bytes` of each arm, on a GPU;
    `process_bytes` is the most that the process ever held. `profiles` of each arm, if they were wanted."""

    recipe: Recipe
    device: str
    versions: dict[str, str]
    default: str
    cost: Cost
    peaks: Peaks
    arms: Sequence[Arm]
    race: Race
    compiled: dict[str, Compiled]
    missing: dict[str, str]
    peak_bytes: Mapping[str, int | None]
    process_bytes: int
    profiles: Mapping[str, Profile]

    @property
    def precision(self) -> Precision:
        """That of the recipe."""
        return self.recipe.engine.precision

    @property
    def passes(self) -> int:
        """Forward passes that an image costs, a gradient counted as what it takes: 2K + 3, 2K + 6, or 2K + 7."""
        return self.cost.attack_passes + self.cost.update_passes

    def images_per_second(self, arm: Arm) -> float:
        """At the median."""
        return self.cost.batch_size / self.race.spread(arm.name).median

    def epoch_seconds(self, arm: Arm) -> float:
        """Of the recipe's training set, at the median."""
        return self.race.spread(arm.name).median * self.cost.batches

    def utilisation(self, arm: Arm) -> float:
        """The FLOPs of the method's passes, times images/time, over the measured peak of the arm's precision: model
        FLOPs utilisation. What an arm does beyond these passes is not counted as use. The field's loops mix nowhere
        within the network, so a pass of theirs is a plain one."""
        return self._share_of_peak(arm, self.race.spread(arm.name).median)

    def products_utilisation(self, arm: Arm) -> float:
        """The same if a batch took no longer than its convolutions and matrix products do: what bounds it."""
        return self._share_of_peak(arm, self.profiles[arm.name].products)

    def _share_of_peak(self, arm: Arm, seconds: float) -> float:
        """Of batches that take so long."""
        return self.image_flops(arm) * self.cost.batch_size / seconds / self.peaks.of(arm.precision)

    def image_flops(self, arm: Arm) -> int:
        """Of the method's passes of one image."""
        return self.cost.image if arm.prepared else self.passes * self.cost.forward

    def training_seconds(self, arm: Arm) -> float:
        """Of all the recipe's epochs, without compilation, validation and evaluation."""
        return self.epoch_seconds(arm) * self.cost.epochs

    @property
    def ours(self) -> list[str]:
        """The arms of the engine."""
        return [arm.name for arm in self.arms if arm.prepared]

    @property
    def loops(self) -> list[str]:
        """Those of the field."""
        return [arm.name for arm in self.arms if not arm.prepared]

    def ratios(self) -> dict[tuple[str, str], Spread]:
        """(an arm of the engine, a loop of the field) -> how many times as fast."""
        return {(own, other): self.race.ratio(other, own) for own in self.ours for other in self.loops}

    def to_json(self) -> dict[str, Any]:
        """All of it, in SI units."""
        return {
            "recipe": self.recipe.resolved(),
            "digest": self.recipe.digest(),
            "device": self.device,
            "versions": self.versions,
            "default": self.default,
            "tolerances": asdict(Difference(*engine.TOLERANCES[self.precision])),
            "parameters": self.cost.parameters,
            "batch_size": self.cost.batch_size,
            "batches_per_epoch": self.cost.batches,
            "epochs": self.cost.epochs,
            "inner_steps": self.cost.inner_steps,
            "passes_per_image": self.passes,
            "forward_flops_per_image": self.cost.forward,
            "training_flops": self.cost.training,
            "peaks": {
                "fp32_flops_per_second": self.peaks.fp32,
                "bf16_flops_per_second": self.peaks.bf16,
                "copy_bytes_per_second": self.peaks.copy,
            },
            "process_peak_memory_bytes": self.process_bytes,
            "rounds": self.race.rounds,
            "finished": not self.race.stopped,
            "batches_timed_together": self.race.batches,
            "arms": [self._arm(arm) for arm in self.arms],
            "ratios": [
                {"arm": own, "over": other, **spread._asdict()} for (own, other), spread in self.ratios().items()
            ],
            "missing": self.missing,
        }

    def _arm(self, arm: Arm) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": arm.name,
            "what": arm.what,
            "precision": arm.precision,
            "channels_last": arm.channels_last,
            "seconds_per_batch": self.race.spread(arm.name)._asdict(),
            "seconds_per_batch_in_each_round": self.race.seconds[arm.name],
            "images_per_second": self.images_per_second(arm),
            "epoch_seconds": self.epoch_seconds(arm),
            "training_seconds": self.training_seconds(arm),
            "utilisation": self.utilisation(arm),
            "flops_per_image": self.image_flops(arm),
            "peak_memory_bytes": self.peak_bytes.get(arm.name),
        }
        if seen := self.profiles.get(arm.name):
            found |= {
                "profiled_seconds_per_batch": seen.seconds,
                "products_seconds": seen.products,
                "other_operations_seconds": seen.others,
                "operations": [asdict(one) for one in seen.operations],
            }
        if arm.prepared and arm.prepared.difference:
            compiled, made = self.compiled[arm.name], arm.prepared
            assert made.difference
            found |= {
                "graphs": compiled.graphs.graphs,
                "breaks": compiled.graphs.breaks,
                "graphs_not_captured": compiled.graphs.skipped,
                "cold_compile_seconds": compiled.cold,
                "warm_compile_seconds": compiled.warm,
                "difference": asdict(made.difference),
            }
        return found


def bench(
    recipe: Recipe, place: torch.device, rounds: int, watch: Watcher, wanted: Collection[str] = (), *,
    profiled: bool = False,
) -> Bench:  # fmt: skip
    """Measure the recipe's training on images of noise: speed does not depend on what is in them. `wanted` of ARMS, or
    all that there are on `place`; `profiled` says where a batch of each goes, too. Who stops it while the arms race is
    given the rounds that are whole.

    DeviceError if a wanted one is not there. UsageError if the field's loader cannot work here. EngineError if a
    formulation disagrees with eager. MemoryExhaustedError says which batch fits.
    """
    for_gpus = {"captured", "reduce-overhead"} if place.type != "cuda" else set[str]()
    if absent := for_gpus.intersection(wanted):
        raise DeviceError(f"--arm {min(absent)} needs a CUDA GPU, and the device is {place.type}")
    wanted = wanted or ARMS.keys() - for_gpus
    if LOOPS.keys() & wanted:
        check_sockets()
    build.arithmetic(recipe)
    outline = build.outline(recipe, place, watch.say)
    images = outline.noise(min(outline.train, max(2_048, 4 * recipe.schedule.batch_size))).to(place)
    try:
        return _measured(recipe, outline, images, rounds, watch, wanted, profiled=profiled)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    release()
    # Which arms there are does not follow from how the recipe is compiled.
    eager = recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"compile": "off"})})
    raise MemoryExhaustedError(f"{fitting.advice(eager, images, place)}; with --arm fewer are held at a time")


def _measured(
    recipe: Recipe, outline: Outline, images: Dataset, rounds: int, watch: Watcher, wanted: Collection[str], *,
    profiled: bool,
) -> Bench:  # fmt: skip
    place = images.train.pixels.device
    counted = cost(recipe, fresh(recipe, images, place, channels_last=False), outline.image_shape, outline.train)
    tried, why = candidates(recipe, place, counted.training, outline.train)
    watch.say("measuring what the device can do at most")
    highest = peaks.measure(place)

    def new() -> nn.Module:
        return fresh(recipe, images, place, channels_last=recipe.engine.channels_last)

    arms: list[Arm] = []
    if "eager" in wanted:
        arms.append(engine_arm(recipe, Prepared(build.training(recipe, images, new()), "eager", "the reference")))
    compiling: tuple[Formulation, ...] = ("compiled", "captured", "reduce-overhead")
    with ExitStack() as open_until_the_end:
        formulations: list[Formulation] = [one for one in compiling if one in wanted]
        made = open_until_the_end.enter_context(compiled_arms(recipe, images, new, formulations, watch))
        arms += made.arms
        if loops := LOOPS.keys() & wanted:
            # The loader's workers start here: nothing runs beside a compilation.
            loaded = open_until_the_end.enter_context(pictures(recipe, images))
            arms = [*textbook_arms(recipe, images, place, loaded, loops), *arms]
        if not arms:
            raise EngineError("; ".join(f"{name} cannot be measured: {why}" for name, why in made.missing.items()))
        watch.begin("racing", rounds * len(arms), "timings")
        raced = race({arm.name: arm.run for arm in arms}, place, rounds, lambda: watch.advance(1))
        peak_bytes: dict[str, int | None] = {}
        profiles: dict[str, Profile] = {}
        if not raced.stopped:
            highest = highest.best(peaks.measure(place))
            peak_bytes = {arm.name: _peak(arm, place) for arm in arms} if place.type == "cuda" else {}
            batches = min(PROFILED, raced.batches)
            for arm in arms if profiled else ():
                profiles[arm.name] = profile(arm.run, place, batches, raced.spread(arm.name).median)
    return Bench(
        recipe=recipe,
        device=machine.device_name(place),
        versions=machine.versions(),
        default=f"{next((one for one in tried if one not in made.missing), 'impossible')}, {why}",
        cost=counted,
        peaks=highest,
        arms=arms,
        race=raced,
        compiled=made.compiled,
        missing=made.missing,
        peak_bytes=peak_bytes,
        profiles=profiles,
        # ru_maxrss is in kilobytes on Linux, in bytes on macOS.
        process_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


def _peak(arm: Arm, place: torch.device) -> int | None:
    """What a batch of the arm allocates at most, beyond what all arms hold between their batches. A replay allocates
    nothing: a captured batch needs what it was captured with, and what torch captures itself is not known."""
    if arm.prepared:
        on_batch = arm.prepared.training.on_batch
        if isinstance(on_batch, Replayed):
            return on_batch.needs
        if arm.prepared.formulation == "reduce-overhead":
            return None
    wait(place)
    before = torch.cuda.memory_allocated(place)
    torch.cuda.reset_peak_memory_stats(place)
    arm.run()
    wait(place)
    return torch.cuda.max_memory_allocated(place) - before
