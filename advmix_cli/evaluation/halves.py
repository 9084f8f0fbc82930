"""As many images at a time as the memory holds."""

from collections.abc import Callable
from typing import TypeVar

from advmix_cli.errors import MemoryExhaustedError
from advmix_cli.evaluation.subject import Subject
from advmix_cli.memory import is_out_of_memory, release

Made = TypeVar("Made")


def as_it_fits(subject: Subject, size: int, work: Callable[[Subject], Made], halved: Callable[[int], None]) -> Made:
    """What `work` gives for a batch of `size` images. Where the memory does not hold it, the batch goes through the
    network in halves of halves, and `work` starts again, after `halved` was told how many images they are.
    MemoryExhaustedError if one is too many."""
    fitting = subject
    while True:
        try:
            return work(fitting)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if size == 1:
            raise MemoryExhaustedError("out of memory in evaluation, with one image at a time")
        size = (size + 1) // 2
        halved(size)
        release()
        fitting = subject.in_chunks(size)
