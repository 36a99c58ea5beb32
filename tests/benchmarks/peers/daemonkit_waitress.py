"""Daemonkit's own Flask app on plain waitress, without daemonkit's server."""

import logging
import sys

import waitress

from daemonkit.testing import running

from .daemonkit_app import app

if __name__ == "__main__":
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    port, threads, connections = map(int, sys.argv[1:])
    with running(app):
        waitress.serve(
            app.flask, host="127.0.0.1", port=port, threads=threads, connection_limit=connections
        )
