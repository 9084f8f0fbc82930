"""The paper's three tables: every row trains, and no two rows train the same."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from advmix_cli import build, run
from advmix_cli.recipe.table import load_table

CPU = torch.device("cpu")
TABLES = {
    "table1": (7, 10, 'model={kind="preact-resnet", depth=18, width=4}'),
    "table2": (7, 10, 'model={kind="preact-resnet", depth=18, width=4}'),
    "table3": (3, 3, 'model={kind="wide-resnet", depth=10, width=1}'),
}


@pytest.fixture(scope="module", params=TABLES)
def table(request, tmp_path_factory):
    """A table of the paper with its methods and optimisers, cut down to one epoch of a few generated 32x32 images."""
    rows, classes, model = TABLES[request.param]
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, count in (("train", 24 // classes + 1), ("test", 1)):
        for label in range(classes):
            place = root / part / f"class {label}"
            place.mkdir(parents=True)
            for index in range(count):
                levels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                levels[..., label % 3] //= 2 + label
                Image.fromarray(levels).save(place / f"{index}.png")
    settings = [
        f'data={{source="folder", root="{root.as_posix()}", train_limit=24}}',
        model,
        "schedule.epochs=1",
        "schedule.batch_size=8",
        'validation={fraction=0.0, report="last"}',
    ]
    loaded = load_table(request.param, settings)
    assert len(loaded.rows) == rows
    # The paper's numbers want the paper's evaluators: they load and resolve, but nothing is measured here.
    return [row.recipe.model_copy(update={"evaluators": ()}) for row in loaded.rows]


def test_every_row_trains_and_no_two_end_with_the_same_weights(table, tmp_path, watch):
    ends = []
    for index, recipe in enumerate(table):
        results = run.execute(recipe, tmp_path / str(index), CPU, watch)
        assert results.finished
        assert (results.epochs, results.train_images) == (1, 24)
        state = load_file(tmp_path / str(index) / "model.safetensors")
        assert all(value.isfinite().all() for value in state.values())
        start = build.new_network(recipe, build.dataset(recipe, CPU, print), CPU)
        for name, value in start.named_parameters():
            assert not torch.equal(value, state[name]), name
        ends.append(state["conv.weight"])
    for index, end in enumerate(ends):
        assert not any(torch.equal(end, other) for other in ends[:index])


@pytest.mark.parametrize("name", TABLES)
def test_uncut_tables_are_the_papers_experiments(name):
    for row in load_table(name).rows:
        recipe = row.recipe
        assert recipe.threat.epsilon == 8 / 255
        assert set(row.paper) == {evaluator.name for evaluator in recipe.evaluators}
        ascent, optimizer = recipe.maximizer.ascent, recipe.optimizer
        if name == "table3":
            assert (recipe.model.depth, recipe.model.width, recipe.schedule.epochs) == (34, 10, 200)
            assert (ascent.steps, ascent.step_size) == (10, 2 / 255)
            assert (optimizer.kind, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.1, 0.9, 5e-4)
        else:
            epochs = 80 if row.name == "Attack" else 100
            assert (recipe.model.depth, recipe.model.width, recipe.schedule.epochs) == (18, 64, epochs)
            assert (ascent.steps, ascent.step_size) == (5, 4 / 255)
            assert (optimizer.kind, optimizer.lr, optimizer.weight_decay) == ("yogi", 0.003, 5e-4)
            assert (recipe.schedule.drops, recipe.schedule.factor) == ((0.7, 0.9), 0.1)
        assert recipe.schedule.batch_size == 128
        assert (recipe.data.flip, recipe.data.translate) == (True, 4)
