"""Counts GitHub's webhook deliveries, by kind and by repository.

    export WEBHOOK_SECRET=our-secret
    daemonkit run docs/examples/webhooks.py --config docs/examples/webhooks.yaml

Have GitHub deliver to http://YOUR-HOST:5151/github, with the same secret. To send a delivery
yourself, from another terminal:

    body='{"zen": "Keep it logically awesome.", "repository": {"full_name": "octocat/hello"}}'
    digest=$(printf %s "$body" | openssl dgst -sha256 -hmac our-secret -r | cut -d ' ' -f 1)
    curl http://localhost:5151/github -H 'X-GitHub-Event: ping' \
        -H "X-Hub-Signature-256: sha256=$digest" -d "$body"
    curl http://localhost:5151/status

Without --config signatures are not checked, which is enough to try it out.
"""

import hmac
import json
from collections import Counter
from urllib.parse import unquote_plus

from flask import abort, request

from daemonkit import Daemon

app = Daemon("webhooks")
# Only the event processor's one thread writes these, so they need no lock.
kinds = Counter()
repositories = Counter()


@app.on_start
def check_secret():
    secret = app.config.get("webhook_secret")
    if secret is None:
        app.logger.warning("webhook_secret is not set: anyone's deliveries will be counted")
    elif not isinstance(secret, str) or not secret:
        raise ValueError("webhook_secret must be a string, not empty; put a number in quotes")


@app.route("/github", methods=["POST"])
def github():
    body = request.get_data()
    check_signature(body)
    kind = request.headers.get("X-GitHub-Event")
    if not kind:
        abort(400, "The header X-GitHub-Event is missing")
    delivery = request.headers.get("X-GitHub-Delivery")
    app.put_event({"kind": kind, "delivery": delivery, "payload": read_payload(body)})
    return {"message": "Delivery received", "result": True}


def check_signature(body):
    secret = app.config.get("webhook_secret")
    if secret is None:
        return
    given = request.headers.get("X-Hub-Signature-256")
    if given is None:
        abort(401, "The header X-Hub-Signature-256 is missing")
    right = "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()
    # Bytes, because compare_digest raises TypeError for a str that is not ASCII.
    if not hmac.compare_digest(right.encode(), given.encode()):
        abort(403, "The signature is wrong")


def read_payload(body):
    try:
        text = body.decode()
        # GitHub's other content type. The header doesn't help: curl -d sends it with JSON, too.
        if text.startswith("payload="):
            text = unquote_plus(text.removeprefix("payload="))
        payload = json.loads(text)
    except ValueError as error:
        abort(400, f"Invalid JSON: {error}")
    except RecursionError:
        abort(400, "Invalid JSON: nested too deeply")
    if not isinstance(payload, dict):
        abort(400, "A delivery must be a JSON object")
    return payload


@app.on_event
def count(event, meta):
    # /events and UDP accept anything from anyone; events from the route were checked.
    if meta.source != "app":
        app.logger.warning("Ignored an event from %s (%s): not a delivery", meta.peer, meta.source)
        return
    repository = event["payload"].get("repository")
    # Deliveries about an organization or a user have none.
    if isinstance(repository, dict) and "full_name" in repository:
        repositories[str(repository["full_name"])] += 1
    kinds[event["kind"]] += 1


@app.status_field
def deliveries():
    return kinds.total()


app.add_status_field(lambda: dict(kinds), name="kinds")
app.add_status_field(lambda: dict(repositories), name="repositories")

if __name__ == "__main__":
    app.start()
