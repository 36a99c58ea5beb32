"""A hand-written Flask app, for waitress and for gunicorn."""

from itertools import count as counting
from typing import Any

import flask
from werkzeug.exceptions import BadRequest

from .consumer import Consumer

app = flask.Flask(__name__)
consumer = Consumer()
numbers = counting()


@app.post("/events")
def events() -> dict[str, Any]:
    event = flask.request.get_json(force=True)
    consumer.queue.put(event)
    return {"message": "Event received", "result": True}


@app.errorhandler(BadRequest)
def bad_request(error: BadRequest) -> tuple[dict[str, Any], int]:
    return {"message": error.description, "result": False}, 400


@app.get("/ping")
def ping() -> flask.Response:
    return flask.Response("OK\n", mimetype="text/plain")


@app.get("/hello")
def hello() -> dict[str, Any]:
    return {"Hello": "World", "number": next(numbers)}


@app.get("/count")
def count() -> dict[str, int]:
    return {"count": consumer.count}
