"""Recipe -> objects: each kind becomes its own, and what does not fit is refused."""

import pytest
import torch
from kinds import kinds_of
from torch import nn

from advmix_cli import build
from advmix_cli.data import folder, sources
from advmix_cli.errors import DataError, DeviceError
from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.pgd import Pgd as PgdEvaluator
from advmix_cli.evaluation.pristine import Pristine as PristineEvaluator
from advmix_cli.method import divergence, maximizers
from advmix_cli.method.draws import Sampler
from advmix_cli.networks.normalize import Normalize
from advmix_cli.recipe import schema
from advmix_cli.training import schedules
from advmix_cli.training.step import trades_loss
from advmix_cli.training.yogi import Yogi

CPU = torch.device("cpu")
ASCENT = 'ascent={steps=4, step_size="8/255"}'
PGD = maximizers.Pgd(16 / 255, 8 / 255, 4, True, divergence.kl)
LINEAR = maximizers.Labels("linear", False)
MAXIMIZERS = [
    ('kind="none"', maximizers.Pristine(), Sampler(copies=0)),
    (f'kind="attack", {ASCENT}', maximizers.Attack(PGD), Sampler()),
    (f'kind="mix-then-attack", {ASCENT}', maximizers.MixThenAttack(PGD), Sampler(alpha=0.5)),
    (
        f'kind="attack-then-mix", {ASCENT}, ratio={{alpha=2.0, per="batch"}}',
        maximizers.AttackThenMix(PGD),
        Sampler(alpha=2.0, per="batch"),
    ),
    (
        f'kind="integrated", {ASCENT}',
        maximizers.Integrated(PGD, "independent", maximizers.LearnedRatio(0.65, 0.5, 1e-6), LINEAR),
        Sampler(copies=2, alpha=0.5, kappa=0.65),
    ),
    (
        f'kind="integrated", {ASCENT}, delta="shared", ratio={{kind="frozen"}}, '
        'labels={kind="geometric", endpoints="perturbed", detach=true}',
        maximizers.Integrated(PGD, "shared", None, maximizers.Labels("geometric-perturbed", True)),
        Sampler(alpha=0.5),
    ),
    (
        f'kind="integrated", {ASCENT}, ratio={{kind="learned", kappa=0.8, travel=4.0, logit_clamp=1e-3}}, '
        'labels={kind="geometric"}',
        maximizers.Integrated(
            PGD, "independent", maximizers.LearnedRatio(0.8, 1.0, 1e-3), maximizers.Labels("geometric-clean", False)
        ),
        Sampler(copies=2, alpha=0.5, kappa=0.8),
    ),
    (
        f'kind="integrated", {ASCENT}, ratio={{kind="frozen"}}, mix_after=2',
        maximizers.Integrated(PGD, "independent", None, LINEAR, stages=2),
        Sampler(copies=2, alpha=0.5),
    ),
    (
        f'kind="attack-then-mix", {ASCENT}, mix_after=1',
        maximizers.AttackThenMix(PGD, stages=1),
        Sampler(alpha=0.5),
    ),
    (
        'kind="attack", ascent={steps=0, step_size=0.5, init="zero", clamp=false}',
        maximizers.Attack(maximizers.Pgd(16 / 255, 0.5, 0, False, divergence.kl)),
        Sampler(init="zero"),
    ),
]


@pytest.mark.parametrize(("text", "expected", "drawn"), MAXIMIZERS)
def test_every_maximizer_and_what_it_draws(tiny, text, expected, drawn):
    recipe = tiny(f"maximizer={{{text}}}")
    assert build.maximizer(recipe) == expected
    assert build.sampler(recipe) == drawn


def test_the_step_of_gamma_is_finite_without_steps(tiny):
    recipe = tiny('maximizer={kind="integrated", ascent={steps=0, step_size=0.1}}')
    assert build.maximizer(recipe).learned.step_size == 2.0


def test_the_divergence_is_that_of_the_loss(tiny):
    recipe = tiny('loss.divergence="cross-entropy"')
    assert build.maximizer(recipe).pgd.divergence is divergence.cross_entropy


def test_trades_is_another_loss_and_another_aim_of_the_adversary(tiny):
    recipe = tiny("loss.trades_beta=3", 'loss.divergence="cross-entropy"')
    images = build.dataset(recipe, CPU, print)
    step = build.training(recipe, images, build.new_network(recipe, images, CPU)).on_batch.step
    assert (step.weight, step.loss, step.divergence) == (3.0, trades_loss, divergence.cross_entropy)
    assert step.maximizer == build.maximizer(recipe)
    assert step.maximizer.pgd.divergence is divergence.kl
    assert step.maximizer.pgd.reference is maximizers.prediction
    assert build.maximizer(tiny()).pgd.reference is None


@pytest.mark.parametrize("norm", ["train", "batch", "eval"])
def test_the_step_has_the_batch_norm_mode_and_the_weight_of_the_recipe(tiny, norm):
    recipe = tiny(f'maximizer.ascent.batch_norm="{norm}"', "loss.pristine_weight=0.25")
    images = build.dataset(recipe, CPU, print)
    step = build.training(recipe, images, build.new_network(recipe, images, CPU)).on_batch.step
    assert (step.batch_norm, step.weight) == (norm, 0.25)


def test_the_loop_moves_the_images_and_draws_as_the_recipe_says(tiny):
    for flip in (True, False):
        recipe = tiny(f"data.flip={str(flip).lower()}", "data.translate=2", "seed=3", "data.seed=4")
        images = build.dataset(recipe, CPU, print)
        made = build.training(recipe, images, build.new_network(recipe, images, CPU))
        assert (made.flip, made.translate, made.on_batch.translate, made.seed) == (flip, 2, 2, 3)


OPTIMIZERS = [
    ('kind="sgd", lr=0.1, momentum=0.5, nesterov=true, weight_decay=0.01', torch.optim.SGD),
    ('kind="adam", lr=0.1, betas=[0.5, 0.6], eps=1e-4, weight_decay=0.01', torch.optim.Adam),
    ('kind="adamw", lr=0.1, betas=[0.5, 0.6], eps=1e-4, weight_decay=0.02', torch.optim.AdamW),
    ('kind="yogi", lr=0.1, betas=[0.5, 0.6], eps=1e-2, weight_decay=0.02', Yogi),
]


@pytest.mark.parametrize(("text", "kind"), OPTIMIZERS)
def test_every_optimizer_has_the_recipes_settings(tiny, text, kind):
    recipe = tiny(f"optimizer={{{text}}}")
    optimizer = build.optimizer(recipe, [nn.Parameter(torch.ones(2))])
    assert type(optimizer) is kind
    settings = recipe.optimizer.model_dump(exclude={"kind", "initial_accumulator"})
    assert {name: optimizer.param_groups[0][name] for name in settings} == settings


def test_yogis_first_step_is_the_papers(tiny):
    # In float64, as torch-optimizer has it: the decay is in the gradient, and the first moments start at 1e-6.
    recipe = tiny('optimizer={kind="yogi", lr=0.1, weight_decay=0.5}')
    parameter = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = build.optimizer(recipe, [parameter])
    parameter.grad = torch.tensor([0.3], dtype=torch.float64)
    optimizer.step()
    gradient = 0.3 + 0.5 * 2.0
    first = 0.9 * 1e-6 + 0.1 * gradient
    second = 1e-6 + 0.001 * gradient**2  # sign(v - g²) = -1
    expected = 2.0 - 0.1 / (1 - 0.9) * first / ((second / (1 - 0.999)) ** 0.5 + 1e-3)
    assert parameter.item() == pytest.approx(expected, rel=1e-12)


SCHEDULES = [
    ('kind="steps", epochs=3, drops=[0.5], factor=0.2', schedules.Steps((0.5,), 0.2)),
    ('kind="cosine", epochs=3, warmup=0.1, final=0.2', schedules.Cosine(0.1, 0.2)),
    ('kind="one-cycle", epochs=3, peak=0.3, initial=0.1, final=0.2', schedules.OneCycle(0.3, 0.1, 0.2)),
]


@pytest.mark.parametrize(("text", "expected"), SCHEDULES)
def test_every_schedule(tiny, text, expected):
    assert build.schedule(tiny(f"schedule={{{text}}}")) == expected


@pytest.mark.parametrize(
    ("text", "stages"),
    [('kind="preact-resnet", depth=18, width=4', 8), ('kind="wide-resnet", depth=16, width=1', 6)],
)
def test_every_network(tiny, text, stages):
    made = build.network(tiny(f"model={{{text}}}"), Normalize([0.5], [0.5]), channels=1, classes=7)
    assert len(made.blocks) == stages
    assert made(torch.rand(2, 1, 8, 8)).shape == (2, 7)


def test_every_evaluator(tiny):
    recipe = tiny(
        'evaluators=[{kind="pristine", batch_size=9}, {kind="pgd", steps=3, step_size=0.1, restarts=2, loss="margin", '
        'seed=4}, {kind="pgd", name="zero", steps=3, step_size=0.1, init="zero", epsilon=0.5}, '
        '{kind="autoattack", version="rand", seed=5, batch_size=6}]'
    )
    threat = recipe.threat.epsilon
    assert [build.evaluator(one, recipe.threat) for one in recipe.evaluators] == [
        PristineEvaluator(9),
        PgdEvaluator(threat, 0.1, 3, 2, "uniform", "margin", 4, 500),
        PgdEvaluator(0.5, 0.1, 3, 1, "zero", "cross-entropy", 0, 500),
        AutoAttack("rand", threat, 5, 6),
    ]


def test_an_epsilon_of_zero_is_an_evaluators_own(tiny):
    recipe = tiny('evaluators=[{kind="pgd", steps=3, step_size=0.1, epsilon=0.0}]')
    assert build.evaluator(recipe.evaluators[0], recipe.threat).epsilon == 0


def test_validation_steps_are_a_quarter_of_epsilon_unless_said(tiny):
    assert build.validator(tiny()).step_size == 4 / 255
    assert build.validator(tiny("validation.step_size=0.5")).step_size == 0.5
    assert build.validator(tiny("threat.epsilon=0.0")).step_size == 1 / 255
    assert build.validator(tiny()).steps == 2


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert build.device("auto") == build.device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    used = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    assert build.device("auto").type == "cuda"
    assert build.device("cuda:1") == torch.device("cuda", 1)
    assert used == [torch.device("cuda", 1)]


@pytest.mark.parametrize("name", ["gpu", "", "mps", "meta", "cuda:x", "cpu:0:0"])
def test_a_device_that_is_none_is_refused(name):
    with pytest.raises(DeviceError, match="not a device; use auto, cpu, cuda or cuda:N") as caught:
        build.device(name)
    assert caught.value.exit_code == 2
    assert f"--device {name}" in str(caught.value)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:7", 2)])
def test_a_cuda_device_that_is_not_there_is_refused(monkeypatch, name, count):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(DeviceError, match=f"sees {count or 'no'} CUDA devices"):
        build.device(name)


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "fashion-mnist", "folder"])
def test_a_source_is_asked_for_what_the_recipe_says(tiny, monkeypatch, source):
    def told(*asked, say=None, **options):  # noqa: ARG001
        raise DataError(f"{asked} {options}")

    module, name = (folder, "folder") if source == "folder" else (sources, source.replace("-", "_"))
    monkeypatch.setattr(module, name, told)
    options = {"size": 9, "channels": 1} if source == "folder" else {}
    settings = "".join(f", {key}={value}" for key, value in options.items())
    with pytest.raises(DataError) as caught:
        build.dataset(tiny(f'data={{source="{source}", root="here"{settings}}}'), CPU, print)
    assert str(caught.value) == f"{('here',)} {options}"


def test_the_threads_are_those_of_the_recipe_or_torchs_own(tiny):
    build.arithmetic(tiny())
    own = torch.get_num_threads()
    build.arithmetic(tiny(f"engine.threads={own + 1}"))
    assert torch.get_num_threads() == own + 1
    build.arithmetic(tiny())
    assert torch.get_num_threads() == own


def test_a_single_training_image_is_refused(tiny):
    with pytest.raises(DataError) as caught:
        build.dataset(tiny("data.train_limit=1"), CPU, print)
    assert str(caught.value) == "there are fewer than two training images, and batch norm needs two"
    assert len(build.dataset(tiny("data.train_limit=2"), CPU, print).train) == 2


def test_a_batch_larger_than_the_training_set_is_all_of_it(tiny):
    def trained(batch_size):
        recipe = tiny("data.train_limit=6", f"schedule.batch_size={batch_size}")
        images = build.dataset(recipe, CPU, print)
        training = build.training(recipe, images, build.new_network(recipe, images, CPU))
        (first, _) = training.run(lambda _: None)
        return training, first.figures

    (exact, expected), (larger, found) = trained(6), trained(10_000)
    assert (larger.batch_size, larger.batches) == (exact.batch_size, exact.batches) == (6, 1)
    assert found == expected
    for one, other in zip(larger.network.state_dict().values(), exact.network.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "settings", [["validation={fraction=0.0}"], ['validation={on="test"}']], ids=["none held out", "on test"]
)
def test_a_validation_evaluator_wants_held_out_images(tiny, settings):
    evaluators = 'evaluators=[{kind="pristine", split="validation"}]'
    with pytest.raises(DataError, match="'pristine validation' wants the validation images, but none are held out"):
        build.dataset(tiny(*settings, evaluators), CPU, print)
    assert len(build.dataset(tiny(evaluators), CPU, print).validation) == round(0.05 * 1500)


def weights(recipe):
    made = build.network(recipe, Normalize([0.5], [0.5]), channels=1, classes=10)
    return torch.cat([value.flatten() for value in made.parameters()])


def test_the_seed_alone_chooses_the_weights(tiny):
    torch.manual_seed(1)
    first = weights(tiny("seed=3"))
    torch.manual_seed(2)
    assert torch.equal(first, weights(tiny("seed=3", "data.seed=9")))
    assert not torch.equal(first, weights(tiny("seed=4")))


def test_global_generators_are_left_alone(tiny):
    before = torch.get_rng_state()
    recipe = tiny()
    images = build.dataset(recipe, CPU, print)
    build.training(recipe, images, build.new_network(recipe, images, CPU))
    assert torch.equal(torch.get_rng_state(), before)


NETWORKS = ["kind='preact-resnet', depth=10, width=2", "kind='wide-resnet', depth=10, width=1"]


def test_every_network_of_a_recipe_is_among_them():
    assert kinds_of(schema.Model) == {text.split("'")[1] for text in NETWORKS}


@pytest.mark.parametrize("text", NETWORKS)
def test_no_network_draws_random_numbers(tiny, text):
    """A layer that did, as dropout, would take them from torch's own generator: two runs of one recipe would differ,
    and one that was resumed from both."""
    recipe = tiny(f"model={{{text}}}")
    images = build.dataset(recipe, CPU, print)
    training = build.training(recipe, images, build.new_network(recipe, images, CPU))
    before = torch.get_rng_state()
    training.train_on(training.order(1), 1, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_network_normalises_with_the_statistics_of_the_training_images(tiny):
    recipe = tiny()
    images = build.dataset(recipe, CPU, print)
    normalize = build.new_network(recipe, images, CPU).normalize
    units = images.train.pixels.double() / 255
    assert normalize.mean.item() == pytest.approx(units.mean().item(), rel=1e-6)
    assert normalize.std.item() == pytest.approx(units.std(correction=0).item(), rel=1e-6)
