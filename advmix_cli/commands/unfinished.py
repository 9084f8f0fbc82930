"""Work that is interrupted, and an evaluation that then goes on with the same command."""

from collections.abc import Callable
from typing import Any

from advmix_cli.commands.console import say
from advmix_cli.errors import StoppedError


def with_advice(stopped: StoppedError) -> StoppedError:
    """It, and how to go on with an evaluation."""
    after = "the same command goes on with the attack and the batch where it was"
    return StoppedError(f"unfinished: {stopped}; {after}", stopped.exit_code)


def unfinished(stopped: StoppedError) -> dict[str, Any]:
    """What a document says of work that has stopped."""
    return {"finished": False, "unfinished": str(stopped)}


def said_once() -> Callable[[OSError], None]:
    """Says what cannot be written, each reason once."""
    told: set[int | None] = set()

    def unwritable(error: OSError) -> None:
        if error.errno not in told:
            say(f"warning: {error.filename}: {error.strerror}: if this is interrupted, it starts again")
        told.add(error.errno)

    return unwritable
