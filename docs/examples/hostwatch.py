"""Watches this machine's disks, load and HTTP addresses, and alerts Juggler when one changes.

    daemonkit run docs/examples/hostwatch.py --config docs/examples/hostwatch.yaml

Each kind of check has a slave of its own, so that a slow address doesn't hold up the disks. The
latest results are the field `checks` of the status; `kill -HUP PID` loads new thresholds.

    curl http://localhost:5151/status
"""

import os
import shutil
import socket
import time
from dataclasses import dataclass
from functools import partial

import requests

from daemonkit import Daemon

app = Daemon("hostwatch")
results = {}


@dataclass
class Check:
    warn: float
    crit: float

    def level(self, value):
        return "CRIT" if value >= self.crit else "WARN" if value >= self.warn else "OK"


@dataclass
class Disk(Check):
    """warn, crit: per cent in use."""

    path: str

    def check(self):
        try:
            usage = shutil.disk_usage(self.path)
        except OSError as error:
            return "CRIT", f"The disk at {self.path} can't be checked: {error.strerror}"
        # As df does: space reserved for root is neither in use nor free.
        used = 100 * usage.used / (usage.used + usage.free)
        left = f"{usage.free / 1e9:.1f} GB left"
        return self.level(used), f"The disk at {self.path} is {used:.0f} % full, {left}"


@dataclass
class Load(Check):
    """warn, crit: runnable processes per CPU, on average over five minutes."""

    def check(self):
        load = os.getloadavg()[1] / (os.cpu_count() or 1)
        return self.level(load), f"The load is {load:.2f} per CPU"


@dataclass
class Http(Check):
    """warn, crit: seconds until the answer begins; after `crit` the check gives up."""

    url: str

    def check(self):
        started = time.monotonic()
        try:
            # stream: the body may be large and isn't read.
            with requests.get(self.url, timeout=self.crit, stream=True) as answer:
                seconds = time.monotonic() - started
        except requests.Timeout:
            return "CRIT", f"{self.url} does not answer within {self.crit:g} s"
        except requests.RequestException as error:
            return "CRIT", f"{self.url} does not answer: {root_cause(error)}"
        if not answer.ok:
            return "CRIT", f"{self.url} answers {answer.status_code} {answer.reason}"
        if self.level(seconds) != "OK":
            return self.level(seconds), f"{self.url} is slow: {seconds:.1f} s to answer"
        return "OK", f"{self.url} answers {answer.status_code}"


def root_cause(error):
    """ "Connection refused" rather than the exceptions wrapped around it."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or error


KINDS = {"disk": Disk, "load": Load, "http": Http}


def checks(kind):
    options = app.config.get(kind) or {}
    return {f"{kind}_{name}": KINDS[kind](**option) for name, option in options.items()}


@app.on_start
def start_slaves():
    # Not @app.slave: the slaves depend on the configuration.
    for kind in filter(checks, KINDS):
        app.run_slave(partial(watch, kind), name=kind, every=app.config["every"][kind])


def watch(kind, slave):
    for service, check in checks(kind).items():
        try:
            status, description = check.check()
        # A failing check must not affect the others.
        except Exception as error:
            slave.logger.exception("The check %s failed", service)
            status, description = "CRIT", f"{service} can't be checked: {error!r}"
        before = results.get(service, {}).get("status")
        results[service] = {"status": status, "description": description}
        if status != before:
            host = app.config.get("host") or socket.gethostname()
            slave.logger.info("%s is %s: %s", service, status, description)
            slave.send_event_to_juggler(host, service, status, description)


app.add_status_field(lambda: dict(results), name="checks")

if __name__ == "__main__":
    app.start()
