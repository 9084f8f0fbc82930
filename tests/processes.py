"""advmix as a process of its own."""

import subprocess
import sys
import time


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
