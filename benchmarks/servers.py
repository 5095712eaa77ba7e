"""Server processes: starting them on a free port, and measuring what they use."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME, _PPID = 11, 12, 1  # fields of /proc/PID/stat behind the name


class Server:
    """A command that serves, and the processes it starts. `{port}` in it becomes the port."""

    def __init__(self, command: list[str], environ: dict[str, str], folder: Path) -> None:
        self.port = _free_port()
        self._began, self.started_in = time.perf_counter(), 0.0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open while it serves)
        # Standard output is the log, which a service manager takes.
        self.process = subprocess.Popen(
            [part.replace("{port}", str(self.port)) for part in command],
            cwd=folder,
            env={"PATH": os.environ["PATH"], **environ, "PORT": str(self.port)},
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )

    def wait(self, path: str = "/", seconds: float = 60) -> Server:
        """Return the server once it answers. RuntimeError with its output if it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", path)
                connection.getresponse()
            except (OSError, http.client.HTTPException):
                time.sleep(0.005)
            else:
                self.started_in = time.perf_counter() - self._began
                return self
            finally:
                connection.close()
        self._errors.seek(0)
        output = self._errors.read().decode()
        self.end()
        raise RuntimeError(f"The server did not start.\n{output}")

    def cpu(self) -> float:
        """Seconds of CPU time, user and system, that the processes have used so far."""
        taken = [_stat(pid) for pid in self._tree()]
        return sum(int(each[_UTIME]) + int(each[_STIME]) for each in taken) / _TICKS

    def wait_until_idle(self) -> None:
        """Wait until the processes have finished their remaining work."""
        before, now = -1.0, self.cpu()
        while now > before:
            time.sleep(0.05)
            before, now = now, self.cpu()

    def memory(self) -> float:
        """Resident MiB of the largest process: a worker."""
        return max(_resident(pid) for pid in self._tree())

    def end(self) -> None:
        """Stop the processes."""
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._errors.close()

    def _tree(self) -> list[int]:
        parents: dict[int, list[int]] = {}
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                parents.setdefault(int(_stat(pid)[_PPID]), []).append(pid)
            except OSError:
                continue  # the process has just ended
        tree = [self.process.pid]
        for pid in tree:
            tree.extend(parents.get(pid, []))
        return tree


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
