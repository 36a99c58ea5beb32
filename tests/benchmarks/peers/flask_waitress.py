"""The hand-written Flask app on waitress, with the given numbers of threads and connections."""

import logging
import sys

import waitress

from .computing import start_if_wanted
from .flask_app import app

if __name__ == "__main__":
    # It would warn about nearly every request, because it waits for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    start_if_wanted()
    port, threads, connections = map(int, sys.argv[1:])
    waitress.serve(app, host="127.0.0.1", port=port, threads=threads, connection_limit=connections)
