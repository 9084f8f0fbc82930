"""Epochs: their order, their randomness, and how they end."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from advmix_cli.data.images import Dataset, Images
from advmix_cli.errors import DivergedError
from advmix_cli.method.divergence import kl
from advmix_cli.method.draws import Sampler
from advmix_cli.method.maximizers import Integrated, Labels, LearnedRatio, Pgd, Pristine
from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preact_resnet import preact_resnet
from advmix_cli.training.batch import OnBatch
from advmix_cli.training.loop import Epoch, Training, _raise_if_diverged
from advmix_cli.training.schedules import OneCycle, Steps
from advmix_cli.training.step import Step

PGD = Pgd(epsilon=0.1, step_size=0.05, steps=2, clamp=True, divergence=kl)
OURS = Integrated(PGD, "independent", LearnedRatio(0.65, 0.4, 1e-6), Labels())


def dataset(count=11):
    """Image n is of the grey level 10n; three classes."""
    pixels = (10 * torch.arange(count, dtype=torch.uint8)).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    images = Images(pixels, torch.arange(count) % 3)
    return Dataset(images, images.first(0), images.first(0), ("a", "b", "c"), [0.5], [0.3])


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def training(network, *, maximizer=None, seed=0, epochs=1, logits=None, lr=0.1, schedule=None, moves=0, count=11):
    optimizer = torch.optim.SGD(network.parameters(), lr=123.0)
    images = dataset(count)
    step = Step(network, logits or network, maximizer or Pristine(), kl, optimizer, "train", 0.0)
    sampler = Sampler(copies=0) if maximizer is None else Sampler(copies=2, alpha=0.5, kappa=0.65)
    return Training(
        on_batch=OnBatch(step, images, moves),
        network=network,
        optimizer=optimizer,
        sampler=sampler,
        images=images.train,
        schedule=schedule or Steps((), 0.1),
        lr=lr,
        epochs=epochs,
        batch_size=4,
        flip=moves > 0,
        translate=moves,
        seed=seed,
    )


def with_step(made, **changes):
    """The same training with another step."""
    return replace(made, on_batch=replace(made.on_batch, step=replace(made.on_batch.step, **changes)))


def nothing(_progress):
    pass


def identities(x):
    """Which images of `dataset` these are."""
    return [round(float(image.mean()) * 25.5) for image in x]


def watched(network):
    """The network, and the list of the batches that it is given."""
    seen = []

    def logits(x):
        seen.append(x.detach().clone())
        return network(x)

    return logits, seen


def run(seed, disturb):
    torch.manual_seed(0)
    network = preact_resnet(Normalize([0.5], [0.3]), depth=10, width=2, channels=1, classes=3)
    if disturb:
        torch.rand(7)
    (epoch,) = training(network, maximizer=OURS, seed=seed, moves=1).run(nothing)
    return epoch.figures, network.state_dict()


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    figures, state = run(3, disturb=False)
    again, same_state = run(3, disturb=True)
    assert figures == again
    assert all(torch.equal(state[name], same_state[name]) for name in state)
    other, other_state = run(4, disturb=False)
    assert figures != other
    assert not torch.equal(state["linear.weight"], other_state["linear.weight"])


def test_the_last_incomplete_batch_is_left_out_and_no_image_comes_twice():
    network = linear()
    logits, seen = watched(network)
    ticks = []
    made = training(network, logits=logits, epochs=3)
    list(made.run(lambda _: ticks.append(len(seen))))
    assert made.batches == 2
    assert ticks == [1, 2, 3, 4, 5, 6]
    assert [len(batch) for batch in seen] == [4] * 6
    epochs = [identities(torch.cat(seen[start : start + 2])) for start in (0, 2, 4)]
    assert all(len(set(epoch)) == 8 and set(epoch) <= set(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert set().union(*epochs) == set(range(11))


def test_each_image_keeps_its_label():
    network = linear()
    pairs = []

    def maximizer(_, x, y, draws):
        pairs.extend(zip(identities(x), y.argmax(1).tolist(), strict=True))
        return Pristine()(network, x, y, draws)

    made = training(network)
    list(with_step(made, maximizer=maximizer).run(nothing))
    assert len(pairs) == 8
    assert all(label == image % 3 for image, label in pairs)


def test_every_batch_of_every_epoch_has_its_own_draws():
    network = linear()
    drawn = []

    def maximizer(_, x, y, draws):
        drawn.append(draws)
        return Pristine()(network, x, y, draws)

    made = training(network, maximizer=OURS, epochs=2)
    list(with_step(made, maximizer=maximizer).run(nothing))
    assert len({draws.noise.sum().item() for draws in drawn}) == 4
    assert len({draws.ratio.sum().item() for draws in drawn}) == 4


def test_augmentation_moves_the_images_and_its_absence_does_not():
    for moves, whole in ((0, True), (2, False)):
        network = linear()
        logits, seen = watched(network)
        list(training(network, logits=logits, moves=moves).run(nothing))
        assert all(batch.flatten(1).std(1).max() < 1e-6 for batch in seen) == whole


def test_the_rate_drops_on_the_first_step_after_seven_tenths_of_the_epochs():
    network = linear()
    made = training(network, epochs=30, lr=0.5, schedule=Steps((0.7, 0.9), 0.1))
    rates = []
    epochs = list(made.run(lambda _: rates.append(made.optimizer.param_groups[0]["lr"])))
    assert rates == pytest.approx([0.5] * 42 + [0.05] * 12 + [0.005] * 6)
    assert [epoch.number for epoch in epochs] == list(range(1, 31))
    assert [epoch.lr for epoch in epochs] == rates[1::2]


def test_the_rate_moves_with_every_batch_and_starts_at_the_schedules_start():
    made = training(linear(), epochs=2, lr=0.5, schedule=OneCycle(peak=0.5, initial=0.2, final=0.0))
    rates = []
    list(made.run(lambda _: rates.append(made.optimizer.param_groups[0]["lr"])))
    assert rates == pytest.approx([0.1, 0.3, 0.5, 0.25])


def test_a_rate_that_a_graph_reads_is_set_where_it_lies():
    made = training(linear())
    rate = made.optimizer.param_groups[0]["lr"] = torch.tensor(9.0)
    made.use_rate(0.5)
    assert made.optimizer.param_groups[0]["lr"] is rate
    assert rate == 0.5


def test_the_figures_are_the_means_over_the_epochs_batches():
    network = linear()
    made = training(network, lr=1e-30)
    logits, seen = watched(network)
    (epoch,) = with_step(made, logits=logits).run(nothing)
    labels = [torch.tensor(identities(x)) % 3 for x in seen]
    losses = [nn.functional.cross_entropy(network(x), y).item() for x, y in zip(seen, labels, strict=True)]
    assert epoch.figures["loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_the_means_are_of_double_precision():
    losses = iter([torch.tensor(1e8), torch.tensor(1.0)])
    (epoch,) = replace(training(linear()), on_batch=lambda _: {"loss": next(losses)}).run(nothing)
    assert epoch.figures == {"loss": 50_000_000.5}


def test_an_epoch_that_was_gone_on_with_tells_the_speed_of_what_was_left_of_it():
    made, reached = training(linear()), []
    list(made.run(reached.append))
    (epoch,) = made.run(nothing, reached[0])
    assert epoch.images_per_second * epoch.seconds == pytest.approx(4)


def test_a_line_has_times_to_the_millisecond_and_speeds_to_a_tenth():
    timing = {"images_per_second": 1234.6, "seconds": 0.123}
    assert Epoch(2, {"loss": 0.5}, 0.1, 1234.5678, 0.12345).to_json() == {"epoch": 2, "loss": 0.5, "lr": 0.1, **timing}


def test_an_epoch_tells_its_speed_and_writes_a_line():
    (epoch,) = training(linear()).run(nothing)
    assert epoch.images_per_second > 0
    assert epoch.images_per_second * epoch.seconds == pytest.approx(8)
    assert list(epoch.to_json()) == ["epoch", "loss", "ratio", "lr", "images_per_second", "seconds"]


@pytest.mark.parametrize(("broken", "epoch", "batch"), [(1, 1, 1), (2, 1, 2), (3, 2, 1), (6, 3, 2)])
def test_a_loss_that_is_not_a_number_stops_the_run_and_names_epoch_and_batch(broken, epoch, batch):
    network = linear()
    logits, seen = watched(network)

    def breaking(x):
        return logits(x) * (float("nan") if len(seen) >= broken else 1.0)

    epochs = training(network, logits=breaking, epochs=4).run(nothing)
    with pytest.raises(DivergedError) as caught:
        list(epochs)
    assert str(caught.value) == f"the loss became non-finite (nan) at epoch {epoch}, batch {batch}"
    assert caught.value.exit_code == 3


def test_a_rate_far_too_high_diverges_on_the_second_batch():
    with pytest.raises(DivergedError, match=r"non-finite \((nan|inf)\) at epoch 1, batch 2$"):
        list(training(linear(), lr=1e38).run(nothing))


def test_weights_that_the_last_update_broke_stop_the_run_too():
    network = linear()
    made = training(network, logits=lambda x: 1e3 * network(x), lr=1e38, count=4)
    with pytest.raises(DivergedError) as caught:
        list(made.run(nothing))
    assert str(caught.value) == "the weights became non-finite at epoch 1, batch 1"


def test_buffers_that_are_not_finite_stop_the_run_too():
    network = linear()
    network.register_buffer("variance", torch.tensor(float("inf")))
    with pytest.raises(DivergedError, match=r"^the weights became non-finite at epoch 1, batch 2$"):
        list(training(network).run(nothing))


def test_of_the_figures_that_broke_first_the_first_is_named():
    table = torch.tensor([[1.0, 1.0, 1.0], [1.0, float("inf"), float("nan")], [float("nan"), 1.0, 1.0]])
    with pytest.raises(DivergedError, match=r"^the inner loss before became non-finite \(inf\) at epoch 5, batch 2$"):
        _raise_if_diverged(table, ("loss", "inner_loss_before", "inner_loss_after"), 5)


def test_where_only_the_adversary_broke_the_number_shown_is_the_adversarys():
    network = linear()
    calls = []

    def breaking(x):
        calls.append(x)
        return network(x) * (float("inf") if len(calls) == 2 else 1.0)

    with pytest.raises(DivergedError) as caught:
        list(training(network, maximizer=OURS, logits=breaking).run(nothing))
    assert "epoch 1, batch 1" in str(caught.value)
    number = str(caught.value).split("(")[1].split(")")[0]
    assert number in ("nan", "inf")
