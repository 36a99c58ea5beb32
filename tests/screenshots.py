"""Makes the pictures of docs/page.md: the status page of a daemon that has worked for a while.

`python -m tests.screenshots [SECONDS]`: how long it works, by default as long as the plots show.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from .functional.browser import DESKTOP, PHONE, Page, browsing
from .functional.process import Process

DOCS = Path(__file__).parent.parent / "docs"
DAEMON = """
import random
import time
from daemonkit import Daemon

app = Daemon("billing")
booked = []

@app.slave
def connection(slave):
    slave.shutdown.wait()

@app.slave(every=60, after="connection", bound=True)
def sweep(slave):
    time.sleep(1.2)
    slave.logger.warning("%d payments without an account", random.randint(1, 5))

@app.slave(backoff=(5, 240), max_restarts=None, after="sweep")
def mailer(slave):
    time.sleep(1)
    raise ConnectionRefusedError("mail.example:25 refuses the connection")

@app.on_event(threads=4, retries=1, backoff=5)
def handle(event):
    time.sleep(random.expovariate(1 / 0.006))
    if event["account"] % 500 == 0:
        raise LookupError(f"there is no account {event['account']}")
    booked.append(event["paid"])

@app.status_field
def total():
    return round(sum(booked), 2)
"""
CONFIG = """
master:
    port: 0
    host: 127.0.0.1
    hidden_opts: [bank.password]
bank:
    url: https://bank.example
    password: not shown
"""


def send_events(daemon: Process, done: threading.Event) -> None:
    """Send events in waves, as in a day, until `done`."""
    began = time.monotonic()
    while not done.is_set():
        rate = 30 + 20 * math.sin((time.monotonic() - began) / 90)
        account = random.randint(1, 9999)
        daemon.send_event({"account": account, "paid": round(random.uniform(1, 99), 2)})
        time.sleep(random.expovariate(rate))


def take(page: Page, name: str, scheme: str, size: tuple[int, int]) -> None:
    page.use_scheme(scheme)
    page.resize(*size)
    page.run("scrollTo(0, 0)")
    time.sleep(0.5)
    page.driver.save_screenshot(str(DOCS / f"page-{name}.png"))


def main(seconds: float = 900.0) -> None:
    with tempfile.TemporaryDirectory(prefix="billing-") as folder:
        home = Path(folder)
        (home / "mymod.py").write_text(DAEMON, "utf-8")
        (home / "cfg.yaml").write_text(CONFIG, "utf-8")
        command = ("-m", "daemonkit", "run", "mymod", "--config", "cfg.yaml")
        daemon, done = Process(command, home), threading.Event()
        sender = threading.Thread(target=send_events, args=(daemon, done))
        try:
            daemon.wait_ready()
            sender.start()
            time.sleep(seconds)
            with browsing(home / "profile") as page:
                page.open(daemon.url + "/")
                page.wait_for("LookupError", "#failed")
                take(page, "light", "light", (DESKTOP[0], 1250))
                take(page, "dark", "dark", (DESKTOP[0], 1250))
                take(page, "phone", "light", PHONE)
        finally:
            done.set()
            if sender.is_alive():
                sender.join()
            daemon.close()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
