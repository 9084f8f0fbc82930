"""One training step: the one road that every method takes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advmix_cli.method.divergence import kl
from advmix_cli.method.draws import Draws
from advmix_cli.method.maximizers import Divergence, Maximized, Maximizer, Network
from advmix_cli.networks.batch_norm import Mode, batch_norm_mode, own_statistics
from advmix_cli.ranks.team import ALONE, Team


def update_loss(
    logits: Network, divergence: Divergence, pristine_weight: float, found: Maximized
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the update, (), and its parts where there is more than one. A pure function of tensors, with nothing
    that would break a compiled graph."""
    adversarial = divergence(logits(found.x), found.y).mean()
    if not pristine_weight:
        return adversarial, {}
    pristine = divergence(logits(found.x_pristine), found.y_pristine).mean()
    loss = torch.lerp(adversarial, pristine, pristine_weight)
    return loss, {"adversarial_loss": adversarial.detach(), "pristine_loss": pristine.detach()}


def trades_loss(
    logits: Network, divergence: Divergence, beta: float, found: Maximized
) -> tuple[Tensor, dict[str, Tensor]]:
    """d(f(x), y) + β·KL(softmax f(x) || softmax f(x')) (TRADES, Zhang et al., 2019), (), and its parts, the second one
    without its β. The gradient goes through both predictions. In a compiled graph as `update_loss` is."""
    of_pristine = logits(found.x_pristine)
    pristine = divergence(of_pristine, found.y_pristine).mean()
    apart = kl(logits(found.x), of_pristine.softmax(dim=1)).mean()
    return pristine + beta * apart, {"adversarial_loss": apart.detach(), "pristine_loss": pristine.detach()}


@dataclass(frozen=True)
class Step:
    """(x, y, draws) -> the gradient of the loss in the parameters, and an update."""

    network: nn.Module
    logits: Network
    """The network with its precision: [0, 1] images (B, C, H, W) -> float32 logits (B, K)."""
    maximizer: Maximizer
    divergence: Divergence
    optimizer: torch.optim.Optimizer
    batch_norm: Mode
    weight: float
    """The pristine weight of `update_loss`, β of `trades_loss`."""
    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]] = update_loss
    """`update_loss` or `trades_loss`, or a compiled form of it."""
    seen: Callable[[], Network] | None = None
    """Gives the network as the adversary sees it in this batch, which computes the same; None: it sees `logits`."""
    team: Team = ALONE
    """The ranks that have the other parts of the batch."""

    def __call__(self, x: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Returns batch means, scalars on the device: `loss` and its parts `adversarial_loss` (in TRADES the KL without
        β) and `pristine_loss`, the adversary's objective at its first and at its last gradient, `inner_loss_before` and
        `inner_loss_after`, and λ_x, `ratio`. What the method does not compute is not there; the keys are those of every
        other batch."""
        # Autocast keeps what it has cast until its outermost context ends. This one casts nothing; of an update with
        # more passes than one, the weights are cast once.
        with torch.autocast(x.device.type, enabled=False):
            with batch_norm_mode(self.network, self.batch_norm):
                found = self.maximizer(self.seen() if self.seen else self.logits, x, y, draws)
            # The path is for the figures; a compiled loss would take each of its tensors for an argument.
            loss, parts = self.loss(self.logits, self.divergence, self.weight, found._replace(path=[]))
        figures = {"ratio": found.ratio.mean().to(x.dtype)}
        if found.path:
            figures |= {"inner_loss_before": found.path[0].mean(), "inner_loss_after": found.path[-1].mean()}
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        figures = self._of_all({"loss": loss.detach(), **figures, **parts})
        self.optimizer.step()
        return figures

    def _of_all(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """The figures of the batch of all ranks. In the same breath the gradients and the batch norms' running
        statistics become those of all: nothing else of a rank is its own, and after the update all are equal again.

        Not DistributedDataParallel: that orders its sums by the first backward pass of the process, so that of three
        ranks or more a training that was resumed would differ from one that was not.
        """
        if self.team.world == 1:
            return figures
        gradients = [value.grad for value in self.network.parameters() if value.grad is not None]
        row = torch.stack(list(figures.values()))
        self.team.average([*gradients, *own_statistics(self.network), row])
        return dict(zip(figures, row.unbind(), strict=True))
