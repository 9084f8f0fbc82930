"""The network as an adversary in bfloat16 sees it: with weights that are cast once a batch, not at every pass."""

from copy import deepcopy

import torch
from torch import Tensor, nn

CAST = nn.Conv2d | nn.Linear


class CastOnce:
    """`network` is the trained one with the weights of its convolutions and products in bfloat16, rounded as autocast
    rounds them, and without a gradient of their own. Batch norms, their statistics, and whatever else there is are the
    trained one's.

    Autocast remembers what it has cast, but not from one compiled graph to the next.
    """

    def __init__(self, trained: nn.Module) -> None:
        cast = [module for module in trained.modules() if isinstance(module, CAST)]
        self._trained: list[Tensor] = [value for module in cast for value in module.parameters()]
        own = {id(value) for value in self._trained}
        shared: list[nn.Module | Tensor] = [
            *(one for one in trained.modules() if one not in cast and not list(one.children())),
            *(one for one in [*trained.parameters(), *trained.buffers()] if id(one) not in own),
        ]
        self.network = deepcopy(trained, memo={id(one): one for one in shared})
        copies = [module for module in self.network.modules() if isinstance(module, CAST)]
        for module in copies:
            module.to(torch.bfloat16).requires_grad_(False)
        self._own: list[Tensor] = [value for module in copies for value in module.parameters()]

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the weights as they are now."""
        torch._foreach_copy_(self._own, self._trained)  # pyright: ignore[reportPrivateImportUsage]
