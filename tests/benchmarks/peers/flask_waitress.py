"""The hand-written Flask app on waitress, with as many threads as daemonkit has (4)."""

import sys

import waitress

from .flask_app import app

if __name__ == "__main__":
    waitress.serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=4)
