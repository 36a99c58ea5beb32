"""A hand-written Flask app, for waitress and for gunicorn."""

from typing import Any

import flask
from werkzeug.exceptions import BadRequest

from .consumer import Consumer

app = flask.Flask(__name__)
consumer = Consumer()


@app.post("/events")
def events() -> dict[str, Any]:
    event = flask.request.get_json(force=True)
    consumer.queue.put(event)
    return {"message": "Event received", "result": True}


@app.errorhandler(BadRequest)
def bad_request(error: BadRequest) -> tuple[dict[str, Any], int]:
    return {"message": error.description, "result": False}, 400


@app.get("/count")
def count() -> dict[str, int]:
    return {"count": consumer.count}
