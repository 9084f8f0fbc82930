"""Seeded damage to bytes: what disks, copies and people do to files."""

import random
import signal
from contextlib import contextmanager


def mutated(content, drawing, other=b"", head=0):
    """`content` cut off, with bits flipped, or with pieces moved, zeroed, or taken from `other`. Half of the places lie
    within the first `head` bytes, where a bit means most."""
    kind = drawing.choice(["cut", "flip", "flip", "zero", "copy", "insert", "remove", "splice"])
    size = len(content)

    def place():
        return drawing.randrange(min(head, size) if head and drawing.random() < 0.5 else size)

    at, length = place(), drawing.randint(1, 64)
    changed = bytearray(content)
    match kind:
        case "cut":
            del changed[at:]
        case "flip":
            for _ in range(drawing.randint(1, 4)):
                changed[place()] ^= 1 << drawing.randrange(8)
        case "zero":
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        case "copy":
            changed[at : at + length] = content[(source := place()) : source + length]
        case "insert":
            changed[at:at] = bytes(drawing.randrange(256) for _ in range(length))
        case "remove":
            del changed[at : at + length]
        case "splice":
            changed = changed[:at] + (other or content)[place() :]
    return kind, bytes(changed)


def drawings(seed, count):
    return (random.Random(f"{seed} {number}") for number in range(count))


@contextmanager
def within(seconds):
    """AssertionError where it takes longer."""

    def late(_number, _frame):
        raise AssertionError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
