"""advmix as a process of its own, and ports for processes."""

import random
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress


def command(recipe, directory, *words):
    words = [sys.executable, "-m", "advmix_cli", "train", str(recipe), "--out", str(directory), "--resume", *words]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path, process):
    for _ in range(3000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"{path} did not come to be")


def free_ports(count):
    """None of those that the system gives to whoever asks for any, as the ranks do for each connection: until it is its
    turn such a port could be taken."""
    found = []
    with ExitStack() as stack:
        for port in random.SystemRandom().sample(range(10_000, 32_000), 10 * count):
            one = stack.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(str(port))
            if len(found) == count:
                break
    return found
