"""Daemonkit with many slaves."""

from daemonkit import Slave

from .daemonkit_app import app

SLAVES = 200


def wait(slave: Slave) -> None:
    slave.shutdown.wait()


for number in range(SLAVES):
    app.add_slave(wait, name=f"slave-{number}")
