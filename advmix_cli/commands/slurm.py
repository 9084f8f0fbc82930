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
    from advmix_cli.ablation.slurm.standings import places, places_grid, places_records
    from advmix_cli.ablation.slurm.submissions import submissions
    from advmix_cli.ablation.slurm.submit import job_name

    table = todo[0].directory.parent
    submitted, tasks, captions = submissions(table), {}, []
    if submitted:
        try:
            tasks = scheduler.tasks(job_name(table))
        except SchedulerError as error:
            captions.append(f"SLURM does not answer, and this is what the files say: {error}")
    found = places(todo, submitted, tasks)
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
    from advmix_cli.files import write_atomically
    from advmix_cli.locks import held
    from advmix_cli.rundir import LOG, RECIPE

    where = todo[0].directory.parent
    try:  # before anything is written
        scheduler.tasks(submit.job_name(where))
    except SchedulerError as error:
        raise SchedulerError(f"--launcher slurm: no SLURM answers here; submit from a login node ({error})") from None
    for cell in todo:
        run.check_directory(cell.row.recipe, cell.directory)
    # Between SLURM's answer and the note of it nothing may be interrupted: the jobs would be there, and not known.
    with stoppable() as stop, stop.heard_at_checks(), held(where / DIRECTORY):
        # Within the lock: what was seen before another submission is none of it.
        tasks, submitted = scheduler.tasks(submit.job_name(where)), submissions(where)
        left = [place.cell for place in places(todo, submitted, tasks) if place.to_submit]
        if left:
            for cell in left:
                write_atomically(cell.directory / RECIPE, tomli_w.dumps(cell.row.recipe.resolved()))
            done = submit.submit(left, request, Training(str(Path.cwd()), device, save_every, tuple(trackers)))
            remove_over(submitted, tasks)
            job = next(iter(done.tasks.values())).partition("_")[0]
            say(f"submitted as job {job}: {len(left)} of {len(todo)} cells; `scancel {job}` ends them, all work saved")
            say(f"what the trainings say: {where}/*/{LOG}; what SLURM does with them: {done.directory}")
        else:
            say("nothing to submit: what is not done is in the queue, or at work")
    say("how they stand: the same command with --status; the table, when all is done: the same command")
    show(title, todo, form)
