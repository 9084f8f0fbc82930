"""The cluster, for the tests that need one."""

import pytest
from cluster import Cluster, missing


@pytest.fixture(scope="session")
def started():
    pytest.importorskip("submitit", reason="submitit is not installed")
    if absent := missing():
        pytest.skip(f"SLURM is not on this machine: {', '.join(absent)}; Debian has it in slurmctld, slurmd, "
                    "slurm-client and munge")  # fmt: skip
    with Cluster() as started:
        yield started


@pytest.fixture
def cluster(started):
    """Without a job, before and after."""
    yield started
    started.clear()
