"""Debian's Chromium, driven through two pipes (the DevTools protocol), without a network."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LONGEST = 60.0
"""Seconds that an answer may take."""


class Page:
    """One tab. `requests` are the addresses that it has asked for."""

    def __init__(self, send, receive):
        self._send, self._receive, self._number = send, receive, 0
        self._rest, self._session, self._fired = b"", None, []
        self.requests = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.ask("Network.enable")

    def _message(self, until):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._receive], [], [], max(0, until - time.monotonic()))
            assert ready, "Chromium does not answer"
            read = os.read(self._receive, 2**20)
            assert read, "Chromium has ended"
            self._rest += read
        first, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(first)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if "method" in message:
            self._fired.append(message["method"])
        return message

    def ask(self, method, **parameters):
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._send, json.dumps(asked).encode() + b"\0")
        until = time.monotonic() + LONGEST
        while (message := self._message(until)).get("id") != self._number:
            pass
        assert "error" not in message, message
        return message["result"]

    def open(self, path):
        self._fired.clear()
        self.ask("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + LONGEST
        while "Page.loadEventFired" not in self._fired:
            self._message(until)

    def look(self, width, height=900, *, dark=False, media="screen"):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def value(self, expression):
        """What JavaScript of ours makes of it; the page's own is not needed for that."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def photograph(self, path):
        """All of the page, not only what a window shows."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def page(profile):
    """A tab of a Chromium of its own, with its files in the directory `profile`; it ends with the block."""
    (to_it, send), (receive, from_it) = (map(_high, os.pipe()) for _ in range(2))
    words = [
        PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank",
    ]  # fmt: skip
    started = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{to_it} 4>&{from_it}', "chromium", *words],
        pass_fds=(to_it, from_it), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile)},
    )  # fmt: skip
    os.close(to_it)
    os.close(from_it)
    try:
        yield Page(send, receive)
    finally:
        started.kill()
        started.wait()
        os.close(send)
        os.close(receive)


def _high(number):
    """The same, above those that the shell takes for its own."""
    copy = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(number)
    return copy
