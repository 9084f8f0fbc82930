"""How work is stopped from outside: by a signal, or by the clock."""

import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Timer, get_ident
from types import FrameType

from advmix_cli.errors import StoppedError

LONGEST_IMPORT = 10.0
"""Seconds that a signal waits for an import."""

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Stop:
    """A request to stop. Work that must end between two steps runs within `heard_at_checks` and asks with `check`; all
    other work, `heard_at_once` within it too, is ended where it is."""

    def __init__(self) -> None:
        self.asked: StoppedError | None = None
        self.number = 0
        """Of the signal that asked."""
        self._at_once = True
        self._waiting_since: float | None = None

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """A signal's handler. The second Ctrl-C ends everything at once."""
        if _is_importing(frame) and self._may_wait():
            again = Timer(0.05, signal.pthread_kill, [get_ident(), number])
            again.daemon = True
            again.start()
            return
        if self.asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.hear(number)
        if self._at_once:
            self.check()

    def hear(self, number: int) -> None:
        """A signal, of this process or of another rank, asks to stop; the first one counts."""
        if self.asked is None:
            name = signal.Signals(number).name
            timed = name == "SIGALRM"
            self.number = number
            self.asked = StoppedError("time is up" if timed else f"stopped by {name}", 0 if timed else 128 + number)

    def _may_wait(self) -> bool:
        """For LONGEST_IMPORT after the first time: what is imported may be a user's own, and never end."""
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        return now < self._waiting_since + LONGEST_IMPORT

    def check(self) -> None:
        """StoppedError if a stop has been asked for."""
        if self.asked:
            raise self.asked

    def heard_at_checks(self) -> AbstractContextManager[None]:
        """Within, a signal waits for `check`."""
        return self._hearing(at_once=False)

    def heard_at_once(self) -> AbstractContextManager[None]:
        """Within, a signal raises, one that has come before too."""
        return self._hearing(at_once=True)

    @contextmanager
    def _hearing(self, *, at_once: bool) -> Iterator[None]:
        before, self._at_once = self._at_once, at_once
        try:
            if at_once:
                self.check()
            yield
        finally:
            self._at_once = before


def _is_importing(frame: FrameType | None) -> bool:
    """Whether what a signal has interrupted is an import. An exception there leaves half a module behind, over which
    whatever cleans up then stumbles, and in torch's C++ it aborts the process."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def stoppable(seconds: float | None = None) -> Iterator[Stop]:
    """SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 ask to stop, and so does the end of `seconds`. For the main thread."""
    stop = Stop()
    numbers = [number for number in SIGNALS if seconds is not None or number != signal.SIGALRM]
    before = {number: signal.signal(number, stop.ask) for number in numbers}
    if seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield stop
    finally:
        if seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
