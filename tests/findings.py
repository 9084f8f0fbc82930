"""Findings of a batch, as an evaluator notes them."""

import torch

from advmix_cli.evaluation.predict import Judgement
from advmix_cli.evaluation.verdicts import Finding


def finding(*stands, images=None):
    """That these images of a batch stand."""
    found = torch.tensor(stands, dtype=torch.bool)
    return Finding(found, Judgement(found, found.float() - 0.25), images)


def same_finding(one, other):
    """Bit for bit."""
    pairs = [(one.stands, other.stands), *zip(one.judgement, other.judgement, strict=True)]
    pairs += [] if one.images is None and other.images is None else [(one.images, other.images)]
    return all(torch.equal(*pair) for pair in pairs)
