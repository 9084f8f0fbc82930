"""The program: its commands, and what becomes of an error: a message and an exit code."""

import errno
import logging
import signal
import sys
import traceback
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from rich.logging import RichHandler
from typer.core import TyperGroup

from advmix_cli import __version__
from advmix_cli.commands.ablate import ablate
from advmix_cli.commands.bench import bench
from advmix_cli.commands.compare import compare
from advmix_cli.commands.console import err, out, say
from advmix_cli.commands.evaluate import evaluate
from advmix_cli.commands.import_tensors import import_
from advmix_cli.commands.plan import plan
from advmix_cli.commands.probe import probe
from advmix_cli.commands.recipes import recipes
from advmix_cli.commands.report import report
from advmix_cli.commands.selftest import selftests
from advmix_cli.commands.status import status
from advmix_cli.commands.train import train
from advmix_cli.commands.verify import verify
from advmix_cli.errors import AdvmixError, RecipeError, StoppedError, UsageError
from advmix_cli.ranks.torchrun import end_at_once, give_way, is_first, launched, outlast_torchrun
from advmix_cli.stopping import stoppable


class Commands(TyperGroup):
    """Turns what went wrong into a message on stderr and an exit code; a traceback only with --debug."""

    def invoke(self, ctx: Any) -> Any:
        outlast_torchrun()
        try:
            with stoppable():
                return super().invoke(ctx)
        except AdvmixError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            if error.said:
                give_way()
                raise typer.Exit(error.exit_code) from None
            count = error.count if isinstance(error, RecipeError) else 1
            err.print(f"error: {count:,} problems\n" if count > 1 else "error: ", style="red", end="")
            say(str(error))
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            # A full disk, a place that may not be written, a closed pipe: the machine's fault, and not the program's.
            if ctx.params.get("debug") or error.errno == errno.EPIPE:  # which click ends without a word
                raise
            err.print("error: ", style="red", end="")
            say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            raise typer.Exit(1) from None
        except StoppedError as stopped:
            if is_first():
                say(str(stopped))
            else:
                give_way()
            raise typer.Exit(stopped.exit_code) from None
        except KeyboardInterrupt:
            say("stopped at once")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"advmix {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,  # noqa: ARG001
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Adversarially robust training, with mixup inside the adversary's optimisation."""
    launch = launched()
    if launch.world > 1 and context.invoked_subcommand != "train":
        error = UsageError(
            f"advmix {context.invoked_subcommand} is one process, and torchrun has started {launch.world}: only advmix "
            "train has ranks; run it without torchrun"
        )
        error.said = launch.rank > 0
        raise error
    logging.basicConfig(
        level=logging.WARNING if launch.rank == 0 else logging.ERROR,
        format="%(message)s",
        handlers=[RichHandler(console=err, show_time=False, show_path=False)],
    )


for command, name in (
    (train, "train"), (evaluate, "eval"), (ablate, "ablate"), (status, "status"), (report, "report"),
    (compare, "compare"), (verify, "verify"), (plan, "plan"), (bench, "bench"), (probe, "probe"), (import_, "import"),
):  # fmt: skip
    app.command(name)(command)
app.add_typer(recipes, name="recipe")
app.add_typer(selftests, name="selftest")


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no λ still gets its numbers
    try:
        app()
    except SystemExit as end:
        end_at_once(end.code if isinstance(end.code, int) else 0)
        raise
    finally:
        # While the interpreter ends there is nothing to save any more, and an exception would only be printed.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
