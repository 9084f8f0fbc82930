"""What a checkpoint, or a network of others, is asked to be measured by."""

from collections.abc import Sequence

from advmix_cli.checkpoint import Checkpoint
from advmix_cli.errors import UsageError
from advmix_cli.recipe import schema
from advmix_cli.recipe.load import Document, parse_setting
from advmix_cli.recipe.positions import Position
from advmix_cli.recipe.schema import Recipe
from advmix_cli.recipe.suggest import did_you_mean


def recipe_to_measure(
    saved: Checkpoint, place: str, settings: Sequence[str], names: Sequence[str], limit: int | None
) -> Recipe:
    """The recipe of a checkpoint with other evaluators (edited by `settings`, then only those in `names`, then on the
    first `limit` images), another place of its data or more test images. UsageError for everything else: it is what was
    trained."""
    recipe = edited_to_measure(saved, place, settings)
    return recipe.model_copy(update={"evaluators": wanted(recipe.evaluators, place, names, limit)})


def edited_to_measure(saved: Checkpoint, place: str, settings: Sequence[str]) -> Recipe:
    """That recipe with all of its evaluators, or none."""
    edits = [parse_setting(text) for text in settings]
    for edit in edits:
        if edit.path[0] != "evaluators" and edit.path not in (("data", "root"), ("data", "test_limit")):
            raise UsageError(
                f"{edit.where}: a checkpoint is what it is; only evaluators, data.root and data.test_limit can be set "
                "here"
            )
    recipe = Document(saved.recipe.resolved(), {(): Position(place)}).edited(edits).recipe()
    least, asked = saved.recipe.data.test_limit, recipe.data.test_limit
    if asked is not None and (least is None or asked < least):
        raise UsageError(
            f"data.test_limit = {asked}: its recipe has {least or 'all'} test images, and fewer are measured with "
            "--limit"
        )
    return recipe


def wanted(
    evaluators: Sequence[schema.Evaluator], place: str, names: Sequence[str], limit: int | None
) -> tuple[schema.Evaluator, ...]:
    """Those in `names`, or all of them, on the first `limit` images."""
    known = [evaluator.name for evaluator in evaluators]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--evaluator '{name}' is none of the recipe's{did_you_mean(name, known)} "
                f"(it has {', '.join(known) or 'none'}; "
                '--set \'evaluators=[{kind="pgd", steps=20, step_size="2/255"}]\' measures something else)'
            )
    chosen = [one for one in evaluators if not names or one.name in names]
    if not chosen:
        raise UsageError(
            f"{place}: its recipe has no evaluators; give some with --set 'evaluators=[{{kind=\"pristine\"}}]'"
        )
    limits = {} if limit is None else {"limit": limit}
    return tuple(one.model_copy(update=limits) for one in chosen)
