"""Daemons with a durable queue that record handled events in a file, which survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from daemonkit.events.durable.store import Store

from .process import Process

HEAD = """
import json, os, time
from pathlib import Path
from daemonkit import Daemon

app = Daemon('app')
handled = os.open(os.environ['HANDLED'], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
pause, gate = float(os.environ['PAUSE']), Path(os.environ['GATE'])

def note(event):
    os.write(handled, f'{json.dumps(event)}\\n'.encode())
"""
ONE_BY_ONE = HEAD + "\n@app.on_event\ndef handle(event):\n    note(event)\n    time.sleep(pause)\n"
"""In order, in one thread."""
AT_THE_GATE = HEAD + (
    "\n@app.on_event\ndef handle(event):\n    while not gate.exists():\n"
    "        time.sleep(0.005)\n    note(event)\n"
)
"""The same, but each only after `open_gate`."""


class Queue:
    """The file of a durable queue, the daemons that use it, and what they have handled.

    folder: for the records, on a disk that is neither full nor lost; environ: of the daemons.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        run_app: Callable[..., Process],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self._environ = environ or {}
        self._notes, self._gate = folder / "handled", folder / "gate"
        self._notes.touch()
        self._run_app = run_app

    def start(self, text: str, *settings: str, pause: float = 0.0, **environ: str) -> Process:
        """Start a daemon, with settings such as `ack_batch=5`; pause: seconds for each event."""
        options = [f"--set=master.{setting}" for setting in (f"queue={self.path}", *settings)]
        files = {"HANDLED": str(self._notes), "GATE": str(self._gate), **self._environ}
        return self._run_app(text, *options, env={**files, "PAUSE": str(pause), **environ})

    def open_gate(self) -> None:
        self._gate.touch()

    def handled(self) -> list[str]:
        """The JSON of each handled event, in order."""
        return self._notes.read_text("ascii").splitlines()

    def numbers(self) -> list[int]:
        """Handled events that are numbers."""
        return list(map(int, self.handled()))

    def left(self) -> int:
        """How many unhandled events are in the file."""
        store = Store(str(self.path), create=False, busy_timeout=1.0)
        try:
            return store.count()
        finally:
            store.close()


def wait_drained(daemon: Process) -> None:
    """Wait until everything is handled."""

    def is_drained() -> bool:
        status = daemon.status()
        return bool(status["events_queue"] == status["events"]["in_work"] == 0)

    daemon.wait_until(is_drained, "an empty queue")


def send_numbers(daemon: Process, numbers: range, *, pad: int = 0) -> None:
    """Send them in one request, each with at least this many characters."""
    answer = daemon.post(
        "/events",
        data="\n".join(str(number).ljust(pad) for number in numbers),
        headers={"Content-Type": "application/x-ndjson"},
    )
    answer.raise_for_status()
