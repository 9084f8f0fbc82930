"""`advmix ablate --launcher slurm` and `advmix ablate --status`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from advmix_cli.commands.console import Format, print_table, say
from advmix_cli.errors import SchedulerError
from advmix_cli.stopping import stoppable

if TYPE_CHECKING:
    from advmix_cli.ablation.cells import Cell
    from advmix_cli.ablation.slurm.submit import Request
    from advmix_cli.report.tracking import Kind


def show(title: str, todo: "Sequence[Cell]", form: Format) -> None:
    """How the cells stand, whoever runs them. Without an answer of SLURM's, what the files say."""
    from advmix_cli.ablation.slurm import scheduler
    from advmix_cli.ablation.slurm.standings import held_elsewhere, places, places_grid, places_records
    from advmix_cli.ablation.slurm.submissions import submissions
    from advmix_cli.ablation.slurm.submit import job_name

    table = todo[0].directory.parent
    submitted, tasks, here, captions = submissions(table), {}, None, []
    if submitted:
        try:
            tasks, here = scheduler.tasks(job_name(table)), scheduler.cluster().name
        except SchedulerError as error:
            captions.append(f"SLURM does not answer, and this is what the files say: {error}")
    found = places(todo, submitted, tasks, here)
    captions += held_elsewhere(found, here)
    print_table(form, places_grid(title, found, captions), places_records(found))


def launch(
    title: str, todo: "Sequence[Cell]", request: "Request", device: str, save_every: float, trackers: "Sequence[Kind]",
    form: Format,
) -> None:  # fmt: skip
    """Submit what nobody has done, does, or is going to do, as one array, and show how the cells stand then."""
    from advmix_cli.ablation.slurm import scheduler, submit

    submit.check_installed()
    scheduler.check_programs()

    import tomli_w

    from advmix_cli import run
    from advmix_cli.ablation.slurm.standings import places
    from advmix_cli.ablation.slurm.submissions import DIRECTORY, remove_over, submissions
    from advmix_cli.ablation.slurm.task import Training
    from advmix_cli.ablation.trained_before import take_over
    from advmix_cli.files import write_atomically
    from advmix_cli.locks import held
    from advmix_cli.rundir import FAILURE, LOG, RECIPE

    where = todo[0].directory.parent
    try:  # before anything is written
        scheduler.tasks(submit.job_name(where))
        here = scheduler.cluster()
    except SchedulerError as error:
        raise SchedulerError(f"--launcher slurm: no SLURM answers here; submit from a login node ({error})") from None
    for cell in todo:
        run.check_directory(cell.row.recipe, cell.directory)
    # Between SLURM's answer and the note of it nothing may be interrupted: the jobs would be there, and not known.
    with stoppable() as stop, stop.heard_at_checks(), held(where / DIRECTORY):
        # Within the lock: what was seen before another submission is none of it.
        tasks, submitted = scheduler.tasks(submit.job_name(where)), submissions(where)
        submit.raise_if_stray(tasks, submitted, where)
        left = [place.cell for place in places(todo, submitted, tasks, here.name) if place.to_submit]
        stop.check()
        if left:
            for cell in left:
                write_atomically(cell.directory / RECIPE, tomli_w.dumps(cell.row.recipe.resolved()))
            take_over(left, say)
            training = Training(str(Path.cwd()), device, save_every, tuple(trackers))
            done = submit.submit(left, request, training, here)
            for cell in left:  # which another cluster would take for a word of its own task
                (cell.directory / FAILURE).unlink(missing_ok=True)
            remove_over(submitted, tasks, here.name)
            job = done.jobs
            say(f"submitted as job {job}: {len(left)} of {len(todo)} cells; `scancel {job}` ends them, all work saved")
            say(f"what the trainings say: {where}/*/{LOG}; what SLURM does with them: {done.directory}")
        else:
            say("nothing to submit: what is not done is in the queue, or at work")
        stop.check()
    say("how they stand: the same command with --status; the table, when all is done: the same command")
    show(title, todo, form)
