"""How the arithmetic of a batch is done: in which precision and layout, and eagerly, compiled, or as one CUDA graph.

Eager is the reference. The other forms have its signature and get the same draws, which are made outside them.
"""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn

from advmix_cli.method.maximizers import Asked, Network
from advmix_cli.method.mixing import Mixture
from advmix_cli.training.answer import answer
from advmix_cli.training.batch import Batch
from advmix_cli.training.cast import CastOnce

log = logging.getLogger("advmix")

Formulation = Literal["eager", "compiled", "captured", "reduce-overhead"]
"""eager: op by op. compiled: the step of the ascent, the loss and the optimizer's update are a graph each, without
breaks. captured: the whole batch, of compiled parts, is one CUDA graph. reduce-overhead: torch.compile captures the
parts itself."""


def _cache() -> str:
    """Where compiled code outlives the process: where the user says, or in the user's caches, not where the machine
    clears /tmp. And torch takes code from a cache that others share even if it was compiled under another setting of
    `donated_buffer`, after which second gradients are wrong. Where it cannot be written, nothing outlives the process.
    """
    wanted = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    place = Path(wanted) if wanted else user_cache_path("advmix") / "inductor"
    try:
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        if wanted:
            log.warning(
                "TORCHINDUCTOR_CACHE_DIR = %s: %s: what is compiled is not kept for later", wanted, error.strerror
            )
        _OF_THIS_PROCESS.append(tempfile.TemporaryDirectory(prefix="advmix-", ignore_cleanup_errors=True))
        return _OF_THIS_PROCESS[0].name
    return str(place)


_OF_THIS_PROCESS: list[tempfile.TemporaryDirectory[str]] = []
# torch settles on a directory when its compiler is first imported, which making an optimizer or copying a network does.
os.environ["TORCHINDUCTOR_CACHE_DIR"] = _cache()
# On a machine without a GPU the compiler's first import warns that there is none.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

Runner = Callable[[Batch], dict[str, Tensor]]
Function = TypeVar("Function", bound=Callable[..., Any])


def logits_of(network: nn.Module, *, precision: Literal["fp32", "bf16"], channels_last: bool) -> Network:
    """`network` as a function (B, C, H, W) float32 -> (B, K) float32. With "bf16" its convolutions and products run in
    bfloat16; what is not the network (δ, γ, loss, projection, interpolation) never does."""
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def logits(x: Asked) -> Tensor:
        if isinstance(x, Mixture):
            device = x.left.device
            x = x._replace(left=x.left.contiguous(memory_format=layout), right=x.right.contiguous(memory_format=layout))
        else:
            device, x = x.device, x.contiguous(memory_format=layout)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            return answer(network, x).float()

    return logits


def cast_once(network: nn.Module, *, channels_last: bool) -> Callable[[], Network]:
    """Gives `logits_of` the network in "bf16" with the weights as they are at each call, cast by then."""
    cast = CastOnce(network)
    logits = logits_of(cast.network, precision="bf16", channels_last=channels_last)

    def now() -> Network:
        cast.refresh()
        return logits

    return now


def formed(function: Function, formulation: Formulation, *, dynamic: bool = False) -> Function:
    """`function` in that formulation: one graph, or an error where it would break. `dynamic` for sizes that vary."""
    if formulation == "eager":
        return function
    _set_up()
    mode = "reduce-overhead" if formulation == "reduce-overhead" else None
    return torch.compile(function, fullgraph=True, dynamic=dynamic, mode=mode)  # pyright: ignore[reportReturnType]


def _set_up() -> None:
    """What torch's compiler needs to be told."""
    import torch._dynamo
    import torch._functorch.config

    # torch 2.11 warns that fp32 products could be TF32 ones: that is the recipe's to say.
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
    # It traces in a mode that takes the end of a traced step for a fault of the network, a stop by a signal too.
    warnings.filterwarnings("ignore", message="Error detected in")
    # The gradient in δ is taken inside the graph.
    torch._dynamo.config.trace_autograd_ops = True
    # FAB takes several gradients of one forward pass: the first must not reuse the memory that the next one reads.
    torch._functorch.config.donated_buffer = False
    # An evaluation has variants: with and without a gradient, few images and many. At the limit torch gives up.
    torch._dynamo.config.recompile_limit = 64


@dataclass(frozen=True)
class Compilation:
    """What torch.compile did. `skipped`: graphs that "reduce-overhead" compiled and did not capture."""

    graphs: int
    breaks: int
    skipped: int = 0

    @classmethod
    def so_far(cls) -> "Compilation":
        """Since `forget_compiled`, counted by torch itself."""
        from torch._dynamo.utils import counters

        breaks, skipped = sum(counters["graph_break"].values()), counters["inductor"]["cudagraph_skips"]
        return cls(counters["stats"]["unique_graphs"], breaks, skipped)

    def since(self, before: "Compilation") -> "Compilation":
        """What came after `before`."""
        return Compilation(self.graphs - before.graphs, self.breaks - before.breaks, self.skipped - before.skipped)

    def __str__(self) -> str:
        skipped = f", {self.skipped} of them not captured" if self.skipped else ""
        return f"{self.graphs} graphs, {self.breaks or 'no'} breaks{skipped}"


def forget_compiled() -> None:
    """Compiled code of earlier runs in this process: it fills a cache of fixed size, after which torch.compile gives
    up. What is on disk stays."""
    if "torch._dynamo" not in sys.modules:
        return  # its import takes a second
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()


class Replayed:
    """A batch goes into static buffers; `replay` works on those, always in the same memory, and `needs` so many bytes
    of it, if that is known. A graph knows what it works on by address alone, so `of`, whose tensors those are, lives as
    long as this does."""

    def __init__(
        self, static: Batch, replay: Callable[[], dict[str, Tensor]], of: Runner | None = None, needs: int | None = None
    ) -> None:
        self._static = static
        self._replay = replay
        self._of = of
        self.needs = needs

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        for own, given in zip(self._static.tensors(), batch.tensors(), strict=True):
            own.copy_(given, non_blocking=True)
        return {name: figure.clone() for name, figure in self._replay().items()}


def captured(on_batch: Runner, example: Batch) -> Replayed:
    """The whole batch as one CUDA graph. It really trains on `example` a few times: cuDNN chooses its algorithms, lazy
    state comes to be, and what the parts compile to is built, none of which can be captured."""
    device, static = example.indices.device, example.copy()
    graph = torch.cuda.CUDAGraph()
    own, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    aside.wait_stream(own)
    try:
        with torch.cuda.stream(aside):
            for _ in range(3):
                on_batch(static)
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            with torch.cuda.graph(graph, stream=aside):
                figures = on_batch(static)
            needs = torch.cuda.max_memory_allocated(device) - before
    except Exception as error:
        # Ending a capture that failed is an error of its own, in which the cause would be lost.
        raise error.__context__ or error from None
    finally:
        # torch leaves the stream of a capture that failed in use.
        torch.cuda.set_stream(own)
        own.wait_stream(aside)

    def replay() -> dict[str, Tensor]:
        graph.replay()
        return figures

    return Replayed(static, replay, on_batch, needs)


def marked(on_batch: Runner) -> Runner:
    """For "reduce-overhead": its graphs reuse their memory from one marked step to the next."""

    def on_one(batch: Batch) -> dict[str, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        return {name: figure.clone() for name, figure in on_batch(batch).items()}

    return on_one
