"""Chromium without a window, driven by its DevTools protocol through two pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Chromium reads commands from descriptor 3 and writes answers and events to 4.
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3]]
for end, wanted in zip(ends, (3, 4)):
    os.dup2(end, wanted)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_SWITCHES = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # in a container, root has none
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
]


class Chromium:
    """A browser with one page. `complaints` holds the faults that its console tells of."""

    def __init__(self, binary: str, folder: Path) -> None:
        its_input, commands = os.pipe()
        answers, its_output = os.pipe()
        start = [sys.executable, "-c", _START, str(its_input), str(its_output)]
        self._process = subprocess.Popen(
            [*start, binary, *_SWITCHES, f"--user-data-dir={folder}"],
            pass_fds=(its_input, its_output),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_input)
        os.close(its_output)
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb")
        self._last = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": parameters}
        command |= {"sessionId": self._session} if self._session else {}
        self._commands.write(json.dumps(command).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last:
            self._note(answer)
        assert "result" in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        text = bytearray()
        while (character := self._answers.read(1)) != b"\0":
            assert character, "Chromium has ended"
            text += character
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        said = event["params"]
        advice = said.get("entry", {}).get("level") == "verbose"
        if event["method"] in {"Log.entryAdded", "Runtime.exceptionThrown"} and not advice:
            self.complaints.append(json.dumps(said))

    def open(self, url: str) -> None:
        """Go to an address, as if it were typed in."""
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def type(self, element: str, text: str) -> None:
        """Type into the element that a selector names, in place of what stands there."""
        self.run(f"document.querySelector({element!r}).select()")
        self.call("Input.insertText", text=text)

    def press_enter(self) -> None:
        """Press the Enter key."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def shows(self) -> str:
        """The text that a reader sees."""
        return self.run("document.body?.innerText ?? ''")

    def close(self) -> None:
        """End it."""
        self._session = None
        self.call("Browser.close")
        self._commands.close()
        self._answers.close()
        self._process.wait(30)
