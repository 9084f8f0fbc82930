"""The test that users run."""

import subprocess
import sys

import pytest
from interrupted import CPU, SMALL

from advmix_cli import run


@pytest.mark.slow
def test_killed_at_random_moments_a_training_ends_with_the_same_bits():
    words = [sys.executable, "-m", "advmix_cli", "selftest", "resume", "--kills", "3"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 of 3 resumed, 3 of 3 ended bitwise identical\n"
    assert done.stderr.count("ended bitwise identical") == 3


def test_a_difference_in_one_bit_is_seen(tiny, tmp_path, watch):
    from advmix_cli.selftest import _different

    recipe = tiny(*SMALL)
    for name in ("one", "other"):
        run.execute(recipe, tmp_path / name, CPU, watch)
    one, other = tmp_path / "one", tmp_path / "other"
    assert list(_different(one, other)) == []
    content = bytearray((other / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (other / "model.safetensors").write_bytes(content)
    (found,) = _different(one, other)
    assert found.startswith("model.safetensors: ")
    lines = (other / "metrics.jsonl").read_text()
    (other / "metrics.jsonl").write_text(lines.replace('"epoch": 2', '"epoch": 20'))
    assert list(_different(one, other)) == [found, "metrics.jsonl"]
