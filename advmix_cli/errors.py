"""What a user can be told. Every error says what is wrong, where, and what to do; each class has its exit code.

Code 2 means that nothing was started: a recipe, a flag or a file is wrong. Errors of ours (a broken invariant) are
plain assertions and never AdvmixErrors.
"""

from collections.abc import Sequence


def printable(text: str) -> str:
    """`text` without what a terminal would obey: control characters are escaped, lines stay lines."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def first_line(error: BaseException) -> str:
    """Of an error of others: its class, and what it says first; torch's compilers say a page, in which the output of
    the system's compiler has the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    output = lines[lines.index("Output:") + 1 :] if "Output:" in lines else []
    reason = next((line for line in output if "error:" in line.lower()), "")
    return ": ".join([type(error).__name__, *lines[:1], *([reason] if reason else [])])


def some(names: Sequence[str]) -> str:
    """The first five, and how many more there are."""
    return f"{', '.join(names[:5])}, and {len(names) - 5:,} more" if len(names) > 5 else ", ".join(names)


class AdvmixError(Exception):
    """Something failed after work had begun."""

    exit_code = 1
    said = False
    """Whether another rank of the same training says it."""


class UsageError(AdvmixError):
    """A recipe, a flag or a file is wrong; nothing was started."""

    exit_code = 2


class RecipeError(UsageError):
    """One or more problems in a recipe or table file, a line each, in the file's order; `count` of them."""

    SHOWN = 50

    def __init__(self, *problems: str) -> None:
        lines = [line for problem in problems for line in problem.split("\n")]
        self.count = len(lines)
        more = [f"and {self.count - self.SHOWN} more"] if self.count > self.SHOWN else []
        super().__init__("\n".join([*lines[: self.SHOWN], *more]))


class DataError(UsageError):
    """A dataset is missing, incomplete, unreadable, or does not fit the recipe."""


class CheckpointError(UsageError):
    """A checkpoint is missing, truncated, of another format, or of another network."""


class ForeignModelError(UsageError):
    """A network of others cannot be made, or a measurement of it would not mean what it says."""


class RunDirectoryError(UsageError):
    """A run directory holds another experiment."""


class InUseError(RunDirectoryError):
    """Another process works in a run directory."""


class DeviceError(UsageError):
    """The device asked for is not there."""


class SchedulerError(UsageError):
    """SLURM is not here, does not answer, or refuses; nothing was submitted."""


class EngineError(AdvmixError):
    """The formulation asked for cannot be used, or computes something else than the eager one."""


class MemoryExhaustedError(AdvmixError):
    """A batch does not fit into the memory of its device."""


class RanksError(AdvmixError):
    """A training of several ranks cannot go on, or another one of them has failed."""


class EvaluationError(AdvmixError):
    """A measurement cannot be trusted, so there is no number."""


class CellsFailedError(AdvmixError):
    """Some cells of a table could not be run."""


class DivergedError(AdvmixError):
    """The training loss became non-finite."""

    exit_code = 3


class StoppedError(KeyboardInterrupt):
    """A signal or the clock ended the work. As with Ctrl-C, what catches errors does not catch it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
