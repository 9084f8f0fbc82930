"""`python tied.py PARENT PROGRAM...` becomes PROGRAM, which is told SIGTERM when the process PARENT ends, however that
ends: a training saves its state then. Only Linux knows that; elsewhere PROGRAM goes on.

A file of its own, with nothing of ours in it, because it is run before PROGRAM and in its place: what a process asks
for between fork and exec would have to be asked for in the threads of its parent.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, program: list[str]) -> None:
    """Never returns."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(128 + signal.SIGTERM)  # it ended before it could be asked for
    os.execv(program[0], program)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
