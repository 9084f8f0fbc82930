"""The compiled arms of a benchmark, and how long each takes to be ready."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from torch import nn

from advmix_cli import engine, machine
from advmix_cli.bench.arms import Arm, engine_arm
from advmix_cli.data.images import Dataset
from advmix_cli.engine import rehearsed
from advmix_cli.errors import EngineError, first_line
from advmix_cli.memory import is_out_of_memory
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.progress import Watcher
from advmix_cli.training.accelerate import Compilation, Formulation, forget_compiled


@dataclass(frozen=True)
class Compiled:
    """Seconds until a formulation is ready: with an empty cache, and again, in the same process, which still has loaded
    what it compiled. What an arm before it has in common is loaded both times; torch's precompiled headers, some 150 MB
    under /tmp, may be there from earlier commands. `graphs` and breaks are those of the first time."""

    cold: float
    warm: float
    graphs: Compilation


@dataclass(frozen=True)
class CompiledArms:
    """`compiled`: of each arm. `missing`: formulations that could not be made, and why."""

    arms: list[Arm] = field(default_factory=list)
    compiled: dict[str, Compiled] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@contextmanager
def compiled_arms(
    recipe: Recipe, images: Dataset, new: Callable[[], nn.Module], formulations: Sequence[Formulation], watch: Watcher
) -> Iterator[CompiledArms]:
    """Each of the `formulations` compiled twice, on `new` networks; their caches last as long as the context.

    EngineError if one disagrees with eager: the speed of something else is not a speed of this.
    """
    made = CompiledArms()
    with ExitStack() as caches:
        ready = {one: caches.enter_context(_empty_cache()) for one in formulations}
        cold: dict[Formulation, tuple[float, Compilation]] = {}
        for formulation in formulations:
            watch.say(f"compiling: {formulation}")
            try:
                with ready[formulation](), machine.deterministic(recipe.engine.deterministic):
                    forget_compiled()
                    first = rehearsed(recipe, images, new(), formulation)
                    assert first.compilation
                    cold[formulation] = first.seconds, first.compilation
                    del first  # the memory that a graph works on
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                made.missing[formulation] = first_line(error)
                watch.say(f"{formulation} cannot be measured: {made.missing[formulation]}")
        # Forgetting what one arm has compiled would let it compile again in the race.
        forget_compiled()
        for formulation, (seconds, graphs) in cold.items():
            watch.say(f"compiling again, from what there is: {formulation}")
            with ready[formulation](), machine.deterministic(recipe.engine.deterministic):
                warm = rehearsed(recipe, images, new(), formulation)
            assert warm.difference
            if not warm.difference.tolerable(recipe.engine.precision):
                raise EngineError(
                    f"{formulation} and eager disagree, so no speeds are given: {warm.difference}; tolerated are "
                    f"{', '.join(map(str, engine.TOLERANCES[recipe.engine.precision]))}"
                )
            made.arms.append(engine_arm(recipe, warm))
            made.compiled[made.arms[-1].name] = Compiled(seconds, warm.seconds, graphs)
        yield made


@contextmanager
def _empty_cache() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """A new place for compiled code, as a context in which it is in use; afterwards the user's own is again."""
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")

    @contextmanager
    def in_use() -> Iterator[None]:
        own = {name: os.environ.pop(name, None) for name in names}
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = directory
        try:
            yield
        finally:
            for name, value in own.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        yield in_use
