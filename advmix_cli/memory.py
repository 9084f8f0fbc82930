"""Running out of memory, on any device."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA's allocator has a class for it; its driver, Triton, cuDNN and cuBLAS have words, such as "CUDA error: out of
    memory" and CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED; torch's CPU allocator raises a plain RuntimeError,
    Python and numpy a MemoryError."""
    words = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "DefaultCPUAllocator")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def largest(fits: Callable[[int], bool], *, at_most: int) -> int:
    """The largest size in 1 .. `at_most` that fits, to a 32nd of itself, or 0; if a size fits, so do smaller ones."""
    if not at_most or fits(at_most):
        return at_most
    low, high = 0, at_most - 1
    while high - low > high // 32:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def tried(work: Callable[[], object]) -> bool:
    """Whether `work` ends without running out of memory. What it allocated is given back."""
    try:
        work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        release()
    return True


def release() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:
            # By its sources torch 2.11 never forgets a capture that failed, and gives nothing back after it.
            if "captures_underway" not in str(error):
                raise


def free(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that can be had without swapping, where the system tells it, as Linux does in `meminfo`."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def left_to_the_process() -> int | None:
    """What `ulimit -v` leaves of its addresses, if there is such a limit, and where the system counts them as Linux
    does."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = _addresses()
    return None if limit == resource.RLIM_INFINITY or taken is None else limit - taken


def _addresses() -> int | None:
    """Bytes of them that this process has taken."""
    import resource

    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return None


@contextmanager
def at_most(more: int) -> Iterator[None]:
    """Within, this process gets `more` bytes beside what it has, and then MemoryError. Only where the system counts
    them as Linux does."""
    taken = _addresses()
    if taken is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = taken + more
    if 0 <= soft < limit:
        limit = soft
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
