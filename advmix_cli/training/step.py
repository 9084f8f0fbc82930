"""One training step: the one road that every method takes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advmix_cli.method.draws import Draws
from advmix_cli.method.maximizers import Divergence, Maximizer
from advmix_cli.networks.batch_norm import Mode, batch_norm_mode


@dataclass(frozen=True)
class Step:
    """(x, y, draws) -> the gradient of the loss in the parameters, and an update."""

    network: nn.Module
    logits: Callable[[Tensor], Tensor]
    """The network with its precision: [0, 1] images (B, C, H, W) -> float32 logits (B, K)."""
    maximizer: Maximizer
    divergence: Divergence
    optimizer: torch.optim.Optimizer
    batch_norm: Mode
    pristine_weight: float

    def __call__(self, x: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Returns batch means, scalars on the device: `loss` and its parts `adversarial_loss` and `pristine_loss`, the
        adversary's objective at its first and at its last gradient, `inner_loss_before` and `inner_loss_after`, and
        λ_x, `ratio`. What the method does not compute is not there; the keys are those of every other batch."""
        with batch_norm_mode(self.network, self.batch_norm):
            found = self.maximizer(self.logits, x, y, draws)
        figures = {"ratio": found.ratio.mean().to(x.dtype)}
        if found.path:
            figures |= {"inner_loss_before": found.path[0].mean(), "inner_loss_after": found.path[-1].mean()}
        loss = adversarial = self.divergence(self.logits(found.x), found.y).mean()
        if self.pristine_weight:
            pristine = self.divergence(self.logits(found.x_pristine), found.y_pristine).mean()
            loss = torch.lerp(adversarial, pristine, self.pristine_weight)
            figures |= {"adversarial_loss": adversarial.detach(), "pristine_loss": pristine.detach()}
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach(), **figures}
