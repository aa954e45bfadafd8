"""Chromium without a window, driven by its DevTools protocol over a pair of pipes."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any


PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Nothing of the browser's own may use the network: every request that is seen is one of the page.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
).split()
TIMEOUT_SECONDS = 60


def chromium() -> str | None:
    """The installed browser."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One tab, and what went wrong in it: `problems` has messages of the console and requests that failed.

    `requests` has the address of everything that pages asked for.
    """

    def __init__(self, program: str, profile: Path):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The protocol's pipes have the numbers 3 and 4.
        script = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._numbers, self._buffer, self._events, self._session = itertools.count(1), b"", [], None
        self._attach()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def _attach(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for what it returns."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        """The next message; events are noted."""
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], TIMEOUT_SECONDS)[0]:
                raise TimeoutError(f"the browser says nothing for {TIMEOUT_SECONDS} s; problems: {self.problems}")
            received = os.read(self._read, 1 << 16)
            if not received:
                raise RuntimeError(f"the browser ended with status {self._process.wait()}")
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(message)
        if "method" in message:
            self._note(message["method"], message["params"])
        return message

    def _note(self, event: str, params: dict[str, Any]) -> None:
        self._events.append(event)
        if event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Network.responseReceived" and params["response"]["status"] >= 400:
            self.problems.append(f"{params['response']['url']}: status {params['response']['status']}")
        elif event == "Network.loadingFailed" and not params.get("canceled"):
            self.problems.append(f"request failed: {params['errorText']}")
        elif event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.problems.append(" ".join(str(entry.get("value", entry)) for entry in params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Go to an address and wait until the page is loaded."""
        self._events.clear()
        result = self.send("Page.navigate", url=url)
        if "errorText" in result:
            raise RuntimeError(f"{url}: {result['errorText']}")
        # Another place on the same page loads nothing.
        while "loaderId" in result and "Page.loadEventFired" not in self._events:
            self._receive()

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript; an error in it raises RuntimeError."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']['exception']['description']}")
        return result["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < end:
            value = self.evaluate(expression)
            if value:
                return value
            time.sleep(0.05)
        raise TimeoutError(f"{expression} did not become true; problems so far: {self.problems}")

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page a size in pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def prefer(self, scheme: str) -> None:
        """Prefer "light" or "dark" colors."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        """Write a picture of what is visible."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))
