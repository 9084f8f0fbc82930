"""`advmix eval --model`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from advmix_cli.commands.console import err, out, print_json, say
from advmix_cli.commands.diagnosis import DIAGNOSED, told
from advmix_cli.commands.keeping import keeper, with_the_worst
from advmix_cli.commands.unfinished import going_on, said_once
from advmix_cli.errors import AdvmixError, ForeignModelError, StoppedError, UsageError, first_line
from advmix_cli.stopping import stoppable

if TYPE_CHECKING:
    from advmix_cli.recipe.measurement import Measurement


@contextmanager
def said_as_one(factory: str) -> Iterator[None]:
    """Whatever code of others raises is one message, an exit among them: it would pass for a success."""
    try:
        yield
    except (AdvmixError, StoppedError, KeyboardInterrupt):
        raise
    except BaseException as error:
        text = f"{type(error).__name__}: {first_line(error)}"
        raise ForeignModelError(f"{factory}: its code ended the measurement: {text}") from error


def evaluate_foreign(
    chosen: "Measurement", file: Path | None, names: Sequence[str], limit: int | None, stop_after: float | None,
    device: str, *, save: Path | None, save_adversarial: bool, diagnose: bool, figures: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Measure a network of others; what its code prints goes to stderr."""
    from platformdirs import user_cache_path

    from advmix_cli import build
    from advmix_cli.diagnosis.diagnose import diagnosed
    from advmix_cli.evaluation.verdict_files import ADVERSARIAL
    from advmix_cli.foreign_model import prepared
    from advmix_cli.measure import Findings, evaluate, wanted
    from advmix_cli.report.progress import watcher
    from advmix_cli.report.tables import outcomes_grid

    where = "the measurement"
    chosen = chosen.model_copy(update={"evaluators": wanted(chosen.evaluators, where, names, limit)})
    place = build.device(device)
    its_own = said_as_one(chosen.model.factory)
    title = str(file or chosen.model.factory)
    if diagnose:
        with redirect_stdout(sys.stderr), its_own, stoppable(stop_after), watcher(err) as watch:
            foreign = prepared(chosen, file, place, watch)
            for suspicion in foreign.suspicions:
                say(f"warning: {chosen.model.factory}: {suspicion}")
            diagnosis = diagnosed(foreign.network, foreign.images, chosen, 0, watch, limit or DIAGNOSED, None)
        told(title, diagnosis, foreign.weights, save, figures, as_json=as_json)
        return
    target = save or (file.parent / ADVERSARIAL if save_adversarial and file else None)
    if save_adversarial and target is None:
        raise UsageError("--save-adversarial without a file of weights wants a directory: --save DIR")
    with redirect_stdout(sys.stderr), its_own, going_on(), stoppable(stop_after), watcher(err) as watch:
        foreign = prepared(chosen, file, place, watch)
        for suspicion in foreign.suspicions:
            say(f"warning: {chosen.model.factory}: {suspicion}")
        fingerprints = foreign.images.fingerprints()
        keep = keeper(target, foreign.weights, fingerprints, foreign.images.classes, identity=foreign.known().weights)
        cache = user_cache_path("advmix") / "findings"
        findings = Findings(cache, foreign.known(), chosen, place, said_once(), images=save_adversarial)
        evaluated = evaluate(chosen.evaluators, chosen, foreign.network, foreign.images, watch, findings.of)
        found = with_the_worst(evaluated, chosen.threat.epsilon, keep)
    outcomes = tuple(one.outcome for one in found)
    if as_json:
        print_json(
            {
                "checkpoint": None if file is None else str(file),
                "weights": foreign.weights,
                "measurement": chosen.resolved(),
                "images": fingerprints,
                "suspicions": foreign.suspicions,
                "outcomes": [outcome.to_json() for outcome in outcomes],
            }
        )
    else:
        weights = f"weights {foreign.weights[:16]} of {file or 'its factory'}"
        splits = dict.fromkeys(one.split for one in chosen.evaluators)
        images = ", ".join(f"{chosen.data.source} {split} {fingerprints[split][:16]}" for split in splits)
        captions = [*(f"SUSPICIOUS: {one}" for one in foreign.suspicions), f"network: {chosen.model}", weights]
        outcomes_grid(title, outcomes, [*captions, f"images: {images}"]).print(out)
    out.file.flush()
    findings.discard()  # it has been told
