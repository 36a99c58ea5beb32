"""What a daemon answers in place of what it was asked for."""

from __future__ import annotations

from ..text import shorten
from .client import Answer, Client

HINTS = {
    200: "which isn't an answer of daemonkit: is it another program?",
    401: "give a token by --config, --token-file or $DAEMONKIT_TOKEN",
    404: "is it another program, an older daemonkit, or is there an `admin` address?",
}
LONGEST = 500
"""Characters of the answer."""


def refusal(client: Client, answer: Answer) -> str:
    """One line on an answer that isn't the one that was asked for."""
    is_ours = isinstance(answer.message(), str)
    hint = HINTS.get(answer.status)
    # A message for 404 says itself what is unknown, if it isn't the path.
    if hint is not None and (answer.status != 404 or not is_ours or "Not found: /" in answer.text):
        hint = f"; {hint}"
    else:
        hint = ""
    said = shorten(" ".join(answer.said().split()), LONGEST)
    return f"{client.address.text} answered {said}{hint}"
