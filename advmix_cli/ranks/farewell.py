"""The word that a rank leaves for the others when its work ends, in the store that all of them reach."""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from advmix_cli.errors import AdvmixError, RanksError, StoppedError

if TYPE_CHECKING:
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

FAILED, OVER = "advmix/failed", "advmix/over"
"""Where the first failure is told to who finds a rank gone, and that the first rank has done all."""


@dataclass(frozen=True)
class End:
    """How the work of a rank has ended, in words that others understand."""

    message: str
    exit_code: int
    stopped: bool

    @classmethod
    def of(cls, error: BaseException) -> "End":
        """What `error` is to the others."""
        known = isinstance(error, AdvmixError | StoppedError)
        return cls(str(error), error.exit_code if known else 1, isinstance(error, StoppedError))

    def elsewhere(self) -> AdvmixError | StoppedError:
        """The same end of another rank, which says it."""
        if self.stopped:
            return StoppedError(self.message, self.exit_code)
        error = RanksError(self.message)
        error.exit_code, error.said = self.exit_code, True
        return error


def leave_word(store: "Store", error: BaseException, rank: int) -> bool:
    """For who finds this `rank` gone, unless there is a word already. Whether this is the word, or nobody keeps
    them."""
    word = json.dumps({**asdict(End.of(error)), "by": rank})
    with suppress(RuntimeError):  # who keeps the words is gone
        return store.compare_set(FAILED, "", word) == word.encode()
    return True


def word_left(store: "Store") -> AdvmixError | StoppedError | None:
    """How the first one to fail has ended, if it said so."""
    with suppress(RuntimeError):  # who keeps the words is gone
        if store.check([FAILED]):
            word = json.loads(store.get(FAILED))
            del word["by"]
            return End(**word).elsewhere()
    return None


def say_over(store: "Store") -> None:
    """The first rank has done all."""
    with suppress(RuntimeError):
        store.set(OVER, "")


def wait_until_over(store: "Store") -> None:
    """Until the first rank has done all, or has failed."""
    with suppress(RuntimeError):
        while not store.check([OVER]) and not store.check([FAILED]):
            time.sleep(1)
