"""Running out of memory: what it looks like, and how the largest size that fits is found."""

import gc
import resource
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advmix_cli import memory
from advmix_cli.memory import is_out_of_memory, largest, tried


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("MemTotal:       16384 kB\nMemFree:          100 kB\nMemAvailable:    2048 kB\n", 2048 * 1024),
        ("MemTotal:       16384 kB\n", None),
        ("MemAvailable:\n", None),
        (None, None),
    ],
)
def test_free_memory_is_what_linux_says(tmp_path, text, free):
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    assert memory.free(tmp_path / "meminfo") == free


@pytest.mark.parametrize(("limit", "taken", "left"), [(-1, 1000, None), (5000, None, None), (5000, 1000, 4000)])
def test_a_limit_leaves_a_process_what_it_has_not_taken(monkeypatch, limit, taken, left):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, -1))
    monkeypatch.setattr(memory, "_addresses", lambda: taken)
    assert memory.left_to_the_process() == left


@pytest.mark.parametrize(("soft", "limit"), [(-1, 1050), (2000, 1050), (1020, 1020)])
def test_a_process_gets_so_much_for_a_while_and_no_more_than_it_may_have(monkeypatch, soft, limit):
    limits = []
    monkeypatch.setattr(memory, "_addresses", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, 3000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    with pytest.raises(MemoryError), memory.at_most(50):
        raise MemoryError
    assert limits == [(limit, 3000), (soft, 3000)]


@pytest.mark.skipif(memory._addresses() is None, reason="the system does not count addresses")
def test_what_a_process_has_already_is_not_taken_from_what_it_gets():
    with memory.at_most(2**28):
        assert np.empty(2**26, np.uint8).nbytes == 2**26
        with pytest.raises(MemoryError):
            np.empty(2**29, np.uint8)


def test_every_way_to_run_out_of_memory_is_one():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert not isinstance(caught.value, torch.OutOfMemoryError)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("DefaultCPUAllocator"), OSError(12, "x")],
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


@given(at_most=st.integers(0, 5000), truth=st.integers(0, 6000))
def test_the_largest_size_is_found_to_a_32nd_in_few_tries_and_never_too_large(at_most, truth):
    asked = []

    def fits(size):
        asked.append(size)
        return size <= truth

    found, best = largest(fits, at_most=at_most), min(truth, at_most)
    assert found <= best
    assert found == best or truth < at_most
    assert best - found <= best / 31
    assert (found == 0) == (best == 0)
    assert all(1 <= size <= at_most for size in asked)
    assert len(asked) == len(set(asked)) <= at_most.bit_length() + 1


def test_small_sizes_are_found_exactly():
    for at_most in range(1, 32):
        for truth in range(at_most + 1):
            assert largest(lambda size, truth=truth: size <= truth, at_most=at_most) == truth


def test_what_was_tried_is_given_back_and_other_errors_are_raised():
    kept = []

    def work():
        value = torch.zeros(1000)
        kept.append(weakref.ref(value))
        cycle = [value]
        cycle.append(cycle)
        raise MemoryError

    gc.disable()
    try:
        assert not tried(work)
    finally:
        gc.enable()
    assert kept[0]() is None
    assert tried(lambda: None)
    with pytest.raises(ZeroDivisionError):
        tried(lambda: 1 / 0)


@pytest.mark.parametrize("said", ["captures_underway.empty() INTERNAL ASSERT FAILED", "an illegal memory access"])
def test_a_capture_that_failed_keeps_nothing_from_going_on(said, monkeypatch):
    def empty_cache():
        raise RuntimeError(said)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    if "INTERNAL" in said:
        memory.release()
    else:
        with pytest.raises(RuntimeError, match=said):
            memory.release()
