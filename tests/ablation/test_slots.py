"""What of the machine each of several trainings gets."""

import os
from types import SimpleNamespace

import pytest
import torch

from advmix_cli import memory
from advmix_cli.ablation import slots
from advmix_cli.ablation.slots import cores, gpus, on_cpu, on_gpus
from advmix_cli.commands import jobs
from advmix_cli.errors import DeviceError
from advmix_cli.recipe.load import load

UUIDS = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,MIG-1f0c2b3a"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(slots, "cores", lambda: 8)
    monkeypatch.setattr(memory, "free", lambda: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("visible", "there", "names"),
    [
        (None, 3, ["0", "1", "2"]),
        ("2,0", 2, ["2", "0"]),
        (" 3 , 1 ", 2, ["3", "1"]),
        (UUIDS, 2, UUIDS.split(",")),
        ("0,-1,1", 1, ["0"]),  # CUDA reads no further than what is none
        ("1,7,2", 1, ["1"]),
    ],
)
def test_each_gpu_is_named_as_the_variable_names_it(visible, there, names):
    assert gpus(visible, there) == names


def test_a_gpu_each_and_by_turns_if_there_are_more_jobs():
    found = on_gpus(3, ["GPU-a", "5"], {})
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in found] == ["GPU-a", "5", "GPU-a"]
    assert {slot.device for slot in found} == {"cuda"}
    assert [slot.environment["OMP_NUM_THREADS"] for slot in found] == ["2"] * 3


@pytest.mark.parametrize(
    ("count", "asked", "each"),
    [
        (1, None, 8),
        (2, None, 4),
        (3, None, 2),
        (9, None, 1),
        (2, "1", 1),
        (2, "6", 4),
        (2, "2,1", 2),
        (2, "x", 4),
        (2, "0", 4),
    ],
)
def test_the_cores_are_shared_and_a_smaller_number_of_the_user_s_is_honoured(count, asked, each):
    found = on_cpu(count, {} if asked is None else {"OMP_NUM_THREADS": asked})
    assert [slot.environment["OMP_NUM_THREADS"] for slot in found] == [str(each)] * count
    assert {slot.device for slot in found} == {"cpu"}
    assert found[0].name == ("1 thread" if each == 1 else f"{each} threads")


def wanted(count, device="cpu", *settings, trainings=20):
    said = []
    return jobs.wanted_slots(count, device, [load("digits", settings)] * trainings, said.append), said


def test_auto_is_one_for_each_visible_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", UUIDS)
    found, said = wanted("auto", "auto")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in found] == UUIDS.split(",")
    assert said == [f"2 jobs at once, GPU {UUIDS.split(',')[0]}, GPU {UUIDS.split(',')[1]}"]
    one, _ = wanted("auto", "cuda:1")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in one] == UUIDS.split(",")[1:]
    assert len(wanted("5", "cuda")[0]) == 5
    assert len(wanted("5", "cuda", trainings=3)[0]) == 3
    with pytest.raises(DeviceError, match="--device cuda:2: not there"):
        wanted("auto", "cuda:2")


def test_auto_on_a_cpu_is_one_for_each_core_as_far_as_there_is_memory(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 10**12)
    found, said = wanted("auto")
    assert (len(found), said) == (8, ["8 jobs at once, 1 thread each"])
    assert len(wanted("auto", "cpu", "engine.threads=3")[0]) == 2
    assert wanted("1")[1] == ["1 job at once, 8 threads"]
    monkeypatch.setattr(memory, "free", lambda: 3 * 10**9)
    found, said = wanted("auto")
    assert [slot.environment["OMP_NUM_THREADS"] for slot in found] == ["2"] * 4
    assert said[0].startswith("memory for 4 of 8 jobs: 3.0 GB are free, and each takes about 0.7 GB")
    monkeypatch.setattr(memory, "free", lambda: None)
    assert len(wanted("auto")[0]) == 8


def test_what_one_of_several_trainings_needs_most_counts(monkeypatch):
    recipes = [load("digits", [f"engine.threads={count}"]) for count in (1, 4)] * 4
    assert len(jobs.wanted_slots("auto", "cpu", recipes, print)) == 2
    needed = [SimpleNamespace(memory=SimpleNamespace(total=total)) for total in (300 * 10**6, 4300 * 10**6)]
    monkeypatch.setattr("advmix_cli.plan.estimate.estimates", lambda *_: needed)
    for free, count in ((10 * 10**9, 2), (10**9, 1)):
        monkeypatch.setattr(memory, "free", lambda free=free: free)
        found, said = wanted("auto")
        assert len(found) == count
        assert said[0] == f"memory for {count} of 8 jobs: {free / 1e9} GB are free, and each takes about 5.0 GB"


def test_more_threads_than_cores_are_said():
    _, said = wanted("3", "cpu", "engine.threads=4")
    assert said[0] == "warning: 3 jobs of engine.threads = 4 are more threads than the 8 cores"
    assert len(wanted("2", "cpu", "engine.threads=4")[1]) == 1
    assert wanted("1", "cpu", "engine.threads=16")[1] == ["1 job at once, 8 threads"]


def test_no_more_jobs_than_there_is_to_train():
    """Each of them then has more threads."""
    for count in ("auto", "7"):
        found, said = wanted(count, "cpu", trainings=2)
        assert [slot.environment["OMP_NUM_THREADS"] for slot in found] == ["4", "4"]
        assert said == ["2 jobs at once, 4 threads each"]


def test_the_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == 64
