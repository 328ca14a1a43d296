"""A headless Chromium under a test's control: the DevTools protocol over two pipes, without another package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PATIENCE = 120.0  # seconds for one answer, on a busy machine
CONTRAST = """(() => {
  const parse = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0) return c; } return [255, 255, 255]; };
  const weak = new Set();
  for (const e of document.querySelectorAll('body *')) {
    const own = Array.from(e.childNodes).some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility() || e.closest('svg, script, [disabled], option')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) weak.add(e.tagName + '.' + e.className + ' ' + ((a + .05) / (b + .05)).toFixed(1));
  }
  return Array.from(weak);
})()"""
"""Elements with text of less than 4.5:1 to what is behind it (WCAG 2, 1.4.3)."""


def find_browser() -> str | None:
    """Return the path of a Chromium: $TREERING_BROWSER, or the first of `NAMES` that is installed."""
    return os.environ.get("TREERING_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


def started_browser() -> Iterator[Page]:
    """Yield a page of the installed Chromium, for a fixture; skip the test where there is none."""
    program = find_browser()
    if program is None:
        pytest.skip(f"no browser is installed: apt-get install chromium, or name one of {', '.join(NAMES)} in the PATH")
    with opened_browser(program) as page:
        yield page


class Page:
    """One open page, and what it has complained of since it was opened.

    Attributes
    ----------
    complaints : list of str
        Errors and warnings of the console, uncaught exceptions, and what the content policy blocked.
    requested : list of str
        Every address that was asked for.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._number = 0
        self._waiting = b""
        self._events: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.requested: list[str] = []
        target = self._call("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True}, session=None)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, address: str) -> float:
        """Load a page and return the seconds that passed until its load event."""
        self._events.clear()
        started = time.perf_counter()
        self._call("Page.navigate", {"url": address})
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._take(self._message())
        return time.perf_counter() - started

    def run(self, script: str) -> Any:
        """Evaluate JavaScript and return its value; a promise is awaited."""
        wanted = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self._call("Runtime.evaluate", wanted)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    @contextlib.contextmanager
    def emulated(self, width: int, scheme: str, media: str = "screen") -> Iterator[None]:
        """Show pages at a width in pixels, in the colour scheme "light" or "dark", on a screen or in print."""
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
        self._call("Emulation.setDeviceMetricsOverride", size)
        wanted = {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self._call("Emulation.setEmulatedMedia", wanted)
        try:
            yield
        finally:
            self._call("Emulation.clearDeviceMetricsOverride")
            self._call("Emulation.setEmulatedMedia", {"media": "", "features": []})

    def screenshot(self, path: Path) -> None:
        image = self._call("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(image["data"]))

    def _call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = "own") -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters or {}}
        if session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._take(answer)

    def _take(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        method, content = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(content["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(content["args"]))
        elif method == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
            self.complaints.append(content["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requested.append(content["request"]["url"])

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            if not select.select([self._from], [], [], _PATIENCE)[0]:
                raise TimeoutError("the browser does not answer")
            piece = os.read(self._from, 1 << 16)
            if not piece:
                raise EOFError("the browser has ended")
            self._waiting += piece
        message, _, self._waiting = self._waiting.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def opened_browser(program: str) -> Iterator[Page]:
    """Start a browser with a profile of its own, give a page of it, and end it."""
    read_commands, to_browser = os.pipe()
    from_browser, write_answers = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--disable-background-networking", "--remote-debugging-pipe", "--window-size=1300,1000"]
        command = f'exec "$0" "$@" 3<&{read_commands} 4>&{write_answers}'
        process = subprocess.Popen(
            ["bash", "-c", command, program, *options, f"--user-data-dir={profile}"],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_commands)
        os.close(write_answers)
        try:
            yield Page(to_browser, from_browser)
        finally:
            os.close(to_browser)  # the browser ends when its pipe does
            os.close(from_browser)
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
