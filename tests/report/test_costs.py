"""Numbers for a person: three digits, in a unit that leaves them short."""

import pytest

from advmix_cli.report.costs import duration, flops, flops_alike, size


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 FLOP"), (99, "99.0 FLOP"), (502_016, "0.502 MFLOP"), (1_110_845_440, "1.11 GFLOP"),
        (722.05e12, "0.722 PFLOP"), (15.3e15, "15.3 PFLOP"), (480.1e15, "480 PFLOP"), (2.995e18, "2,995 PFLOP"),
    ],
)  # fmt: skip
def test_flops(count, shown):
    assert flops(count) == shown


def test_flops_alike():
    assert flops_alike([543e12, 163e12, 0]) == ("PFLOP", ["0.543", "0.163", "0"])


@pytest.mark.parametrize(("count", "shown"), [(0, "0 B"), (512, "0.512 kB"), (2.857e9, "2.86 GB"), (5e15, "5,000 TB")])
def test_size(count, shown):
    assert size(count) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 ms"),
        (0.0047, "4.70 ms"),
        (9.26, "9.26 s"),
        (3750, "62.5 min"),
        (7272, "2.02 h"),
        (4.95e6, "1,375 h"),
    ],
)
def test_duration(count, shown):
    assert duration(count) == shown
