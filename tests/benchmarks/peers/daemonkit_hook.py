"""Daemonkit with a hook that sees each request, so that all of them go through Flask."""

from .daemonkit_app import app

__all__ = ["app"]


@app.before_request
def look() -> None:
    """Let every request pass."""
