"""
Real servers on loopback, each a process group of its own.

Rule 1: ready means that it answers, not that its port is open.
Rule 2: what was started here is ended here, by its id; what it said stands in the error.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

import httpx2

ROOT = Path(__file__).parent.parent.parent
_STARTS_WITHIN = 30.0  # seconds, on a machine that does other things, too
_STOPS_WITHIN = 15.0
_PAUSE = 0.05  # between two tries to get an answer: the starting server needs the processor more
_TRIES = 5  # another program may take the port between its choice and its use


class Server:
    """A uvicorn process with its workers."""

    def __init__(self, app: str, log: Path, *, workers: int, environment: dict[str, str]) -> None:
        """Start it; `ready` says whether it runs."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self._log = log
        port = self.address.rpartition(":")[2]
        options = ["--port", port, "--workers", str(workers), "--timeout-worker-healthcheck", "60"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", app, *options, "--no-access-log", "--timeout-graceful-shutdown", "5"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self) -> bool:
        """Wait for an answer, whatever it is; return False if the process has ended instead."""
        give_up = monotonic() + _STARTS_WITHIN
        with httpx2.Client(trust_env=False) as client:
            while monotonic() < give_up:
                try:
                    client.get(f"{self.url}/ready")
                except httpx2.TransportError:
                    if self._ended_within(_PAUSE):
                        return False
                else:
                    return True
        raise AssertionError(f"no answer within {_STARTS_WITHIN} s:\n{self.log_tail()}")

    def _ended_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Ask it to end, as an operator would; one that does not is killed, and fails the test."""
        self._process.send_signal(signal.SIGTERM)
        if not self._ended_within(_STOPS_WITHIN):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise AssertionError(f"did not stop within {_STOPS_WITHIN} s:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Return the last lines of what the process has said."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])


@contextmanager
def running(app: str, directory: Path, *, workers: int = 1) -> Iterator[Server]:
    """Run a server for as long as the block, over the SQLite file of *directory*."""
    environment = {
        "SESSION_STORE": f"sqlite:///{directory}/sessions.db",
        "SESSION_STORE_TIMEOUT": "15s",  # a busy machine is not a store that is down
    }
    log = directory / "server.log"
    for _ in range(_TRIES):
        server = Server(app, log, workers=workers, environment=environment)
        with ExitStack() as stack:
            stack.callback(server.stop)
            if server.ready():
                yield server
                return
    raise AssertionError(f"uvicorn ended {_TRIES} times:\n{log.read_text(errors='replace')}")
