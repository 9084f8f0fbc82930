"""A measurement is in full fp32, whatever the code around a network has told torch."""

import pytest
import torch
from torch import backends, nn

from advmix_cli.evaluation.predict import measured, tf32_convolutions

PARTS = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.conv]
ASKED = [
    lambda: None,
    lambda: torch.set_float32_matmul_precision("medium"),
    lambda: setattr(backends.cuda.matmul, "allow_tf32", True),
    lambda: setattr(backends.cudnn, "allow_tf32", False),
    lambda: setattr(backends, "fp32_precision", "tf32"),
    lambda: setattr(backends, "fp32_precision", "ieee"),
    lambda: setattr(backends.cudnn.conv, "fp32_precision", "ieee"),
]


@pytest.fixture(autouse=True)
def own_precision():
    yield
    backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    for part, own in zip(PARTS, ["none", "tf32", "tf32", "none", "none"], strict=True):
        part.fp32_precision = own


def told():
    """All that torch says of it; the older way cannot be read where the ways were mixed."""
    found = [part.fp32_precision for part in PARTS]
    for read in (torch.get_float32_matmul_precision, lambda: backends.cudnn.allow_tf32):
        try:
            found.append(read())
        except RuntimeError:
            found.append("mixed")
    return found


@pytest.mark.parametrize("ask", ASKED)
def test_within_it_is_ieee_and_afterwards_as_before(ask):
    left = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    full = left @ left.T
    ask()
    before = told()
    with measured(nn.Identity()):
        assert [part.fp32_precision for part in PARTS] == ["ieee"] * 5
        assert backends.cudnn.allow_tf32 is False, "others can read it"
        assert torch.equal(left @ left.T, full)
    assert told() == before


@pytest.mark.parametrize("ask", ASKED)
def test_attacks_may_look_in_tf32_and_afterwards_it_is_ieee_again(ask):
    ask()
    before = told()
    with measured(nn.Identity()):
        with tf32_convolutions():
            assert [part.fp32_precision for part in PARTS] == ["ieee", "tf32", "tf32", "ieee", "ieee"]
            assert backends.cudnn.allow_tf32 is True, "others can read it"
        assert [part.fp32_precision for part in PARTS] == ["ieee"] * 5
        with pytest.raises(RuntimeError, match="a fault"), tf32_convolutions():
            raise RuntimeError("a fault")
        assert backends.cudnn.allow_tf32 is False
    assert told() == before
