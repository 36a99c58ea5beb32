"""The smallest useful daemon.

    daemonkit run docs/examples/hello.py

Then, from another terminal:

    curl http://localhost:5151/events -d '{"hello": "world"}'
    curl http://localhost:5151/status
    curl http://localhost:5151/hello
"""

from daemonkit import Daemon

app = Daemon("hello")
greeted = []


@app.slave(every=10)
def tick(slave):
    slave.logger.info("%d greeted so far", len(greeted))


@app.on_event
def greet(event):
    app.logger.info("Hello, %s", event)
    greeted.append(event)


@app.status_field(name="greeted")
def count_greeted():
    return len(greeted)


@app.route("/hello")
def hello():
    return {"hello": "world"}


if __name__ == "__main__":
    app.start()
