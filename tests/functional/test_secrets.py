"""Secrets planted in a real daemon, in every form and place, and what its outputs show of them."""

from __future__ import annotations

import json
import signal
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from daemonkit.config.redaction import HIDDEN

from .process import Process

Run = Callable[..., Process]

PLAIN = "hunter2-correct-horse"
AWKWARD = """p@ss "w'ord" <&> 100%/\\ é"""
KEY = (
    "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7\n-----END KEY-----"
)
IN_URL = "url%2Fpass"
CORES = ("correct-horse", "w'ord", "w\\'ord", "ANBgkqhkiG", "BKcwggSj", "url%2Fpass", "url/pass")
"""What of the secrets no output may have, whatever has been done to the text."""

MODULE = """
import base64, html, json, threading, textwrap, urllib.parse
from daemonkit import Daemon, PingError

app = Daemon("app")
SECRETS = [app.config[name] for name in ("plain", "awkward", "key")]
FORMS = {
    "as it is": str,
    "repr": repr,
    "repr with both quotes": lambda text: repr("'" + text + '"'),
    "repr of bytes": lambda text: repr(text.encode()),
    "json": json.dumps,
    "quote": lambda text: urllib.parse.quote(text, safe=""),
    "quote_plus": urllib.parse.quote_plus,
    "html": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "urlsafe": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "basic": lambda text: base64.b64encode(b"user:" + text.encode()).decode(),
    "basic 1": lambda text: base64.b64encode(b"use:" + text.encode()).decode(),
    "basic 2": lambda text: base64.b64encode(b"us:" + text.encode()).decode(),
    "indented": lambda text: textwrap.indent(text, "        "),
    "crlf": lambda text: text.replace("\\n", "\\r\\n"),
}
ALL = [form(secret) for secret in SECRETS for form in FORMS.values()]

class Wrong:
    def __del__(self):
        raise ValueError(ALL[0])

@app.on_start
def plant():
    for text in ALL:
        app.logger.info("message %s", text, extra={"it": {text: [text]}})
    for secret in SECRETS:
        app.logger.info("bytes %s", f"'{secret}".encode())
        try:
            raise ValueError("\\n".join(form(secret) for form in FORMS.values()))
        except ValueError:
            app.logger.exception("exception")
        for length in range(7960, 8000, 3):
            app.logger.error("long", exc_info=ValueError("x" * length + secret))

        def fail(secret=secret):
            raise ValueError(secret)

        thread = threading.Thread(target=fail, name=f"thread {secret}")
        thread.start()
        thread.join()
        for length in range(150, 250, 7):
            app.put_event("x" * length + secret)
    Wrong()
    app.logger.getChild(SECRETS[0]).warning("a logger's name")
    app.send_event_to_juggler(*SECRETS[:2], "OK", "down")

@app.on_event
def handle(event):
    raise ValueError("x" * 7990 + event)

def stuck(slave):
    raise ValueError("x" * 7985 + SECRETS[1])

for number, text in enumerate(SECRETS):
    app.add_slave(stuck, name=f"slave {number} {text}", backoff=60)
    app.add_status_field(lambda text=text: [ALL, text.encode(), {text: text}], name=f"field {text}")

@app.status_field
def failing():
    raise ValueError("x" * 7990 + SECRETS[0])

@app.on_ping
def ping():
    raise PingError("\\n".join(ALL))

@app.route("/wrong")
def wrong():
    raise Exception(SECRETS[0])
"""


def shows(text: str) -> list[str]:
    """What of the secrets is in a text, also behind its encoding."""
    found = [core for core in CORES if core in text]
    decoded = unquote_plus(text)
    return found + [f"decoded {core}" for core in CORES if core in decoded]


def in_base64(text: str) -> list[str]:
    """The words of a text that are base64 of a secret, or of a part of one."""
    found = []
    for word in text.replace('"', " ").replace("'", " ").split():
        for start in range(4):
            part = word[start:].rstrip(",=").replace("-", "+").replace("_", "/")
            part = part[: len(part) // 4 * 4]
            try:
                plain = b64decode(part, validate=True).decode("latin-1")
            except ValueError:
                continue
            found += [core for core in CORES if core[:10] in plain]
    return found


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_planted_secret_is_in_any_output(run_app: Run, tmp_path: Path, style: str) -> None:
    (tmp_path / "plain").write_text(PLAIN)
    (tmp_path / "awkward").write_text(AWKWARD)
    (tmp_path / "key").write_text(KEY)
    log = tmp_path / "app.log"
    daemon = run_app(
        MODULE,
        *(f"--set={name}=!secret file:{tmp_path / name}" for name in ("plain", "awkward", "key")),
        f"--set=master.log_format={style}",
        f"--set=master.log_file={log}",
        f"--set=master.juggler_url=http://user:{IN_URL}@127.0.0.1:1/",
    )
    daemon.wait_until(lambda: log.exists() and "Listening on" in log.read_text())
    listening = next(line for line in log.read_text().splitlines() if "Listening on" in line)
    daemon.port = int(listening.rstrip('"}').rpartition(":")[2].split('"')[0])
    daemon.wait_until(lambda: daemon.get("/ready").status_code == 200)
    daemon.wait_until(lambda: not daemon.status()["events_queue"])
    daemon.wait_until(lambda: "is unavailable" in log.read_text())
    daemon.send_signal(signal.SIGUSR1)
    daemon.wait_until(lambda: "received SIGUSR1" in log.read_text())
    answers = {path: daemon.get(path).text for path in ("/status", "/ping", "/wrong", "/nowhere")}
    assert daemon.stop() == 0
    outputs = {**answers, "log": log.read_text(), "stderr": daemon.err, "stdout": daemon.out}

    for name, text in outputs.items():
        assert (name, shows(text), in_base64(text)) == (name, [], [])
    for name in ("/status", "/ping", "log", "stderr"):
        assert HIDDEN in outputs[name], name
    assert f"http://user:{HIDDEN}@127.0.0.1:1/" in answers["/status"]
    assert "Exception in thread thread" in daemon.err
    assert "Exception ignored in" in daemon.err
    if style == "json":
        for line in outputs["log"].splitlines():
            json.loads(line)


TWO = """
import threading, sys
from daemonkit import Daemon

apps = [
    Daemon(name, config={"token": None, "master": {"port": 0, "host": "127.0.0.1"}})
    for name in ("first", "second")
]
for app in apps:
    app.configure(f"{app.name}.yaml")
    # The other one's secret, too.
    app.on_start(lambda app=app: app.logger.info("tokens: token-of-first token-of-second"))
    app.add_slave(lambda slave: slave.logger.info("here") or slave.shutdown.wait(), name="worker")
threads = [threading.Thread(target=app.start, name=f"main-{app.name}") for app in apps]
for thread in threads:
    thread.start()
    while not apps[threads.index(thread)]._health.is_ready:
        thread.join(0.01)
import logging
logging.getLogger("lib").info("of neither")
for app in apps:
    app.logger.info("both run")
for app in apps:
    app.stop()
for thread in threads:
    thread.join()
print("ended")
"""


@pytest.mark.parametrize("starts", ["app.start", "app.serve"])
def test_two_daemons_in_a_process_have_a_log_each_and_share_their_secrets(
    spawn: Run, starts: str
) -> None:
    configs = {
        f"{name}__yaml": f"token: !secret token-of-{name}\n"
        f"master: {{port: 0, host: 127.0.0.1, log_file: {name}.log}}\n"
        for name in ("first", "second")
    }
    daemon = spawn("prog.py", prog__py=TWO.replace("app.start", starts), **configs)
    assert daemon.wait() == 0
    logs = {name: (daemon.folder / f"{name}.log").read_text() for name in ("first", "second")}

    for name, other in (("first", "second"), ("second", "first")):
        lines = logs[name].splitlines()
        assert not [line for line in lines if f" {other}" in line.replace(f"main-{other}", "")]
        assert "token-of" not in logs[name]
        for text in (f"tokens: {HIDDEN} {HIDDEN}", "here", "both run", "Stopped"):
            assert sum(line.endswith(text) for line in lines) == 1, text
    assert ("of neither" in logs["first"]) == (starts == "app.start")
    assert "of neither" not in logs["second"]
    assert daemon.out == "ended\n"


OWN_HANDLERS = """
import logging, sys
from daemonkit import Daemon

logging.basicConfig(filename="own.log", format="own %(message)s", level="WARNING")
other = logging.FileHandler("other.log")
logging.getLogger("mymod").addHandler(other)
logging.getLogger("mymod").setLevel("ERROR")
app = Daemon("app")

@app.on_start
def start():
    app.logger.warning("of the daemon")
    logging.getLogger("mymod").warning("not this")
    logging.getLogger("mymod").error("of the module")
"""


def test_handlers_and_levels_of_the_user_s_module_are_left_alone(run_app: Run) -> None:
    daemon = run_app(OWN_HANDLERS).wait_ready()
    assert daemon.stop() == 0
    own = (daemon.folder / "own.log").read_text()

    assert "own of the daemon\nown of the module\n" in own
    assert (daemon.folder / "other.log").read_text() == "of the module\n"
    assert "not this" not in own + daemon.out
    for text in ("of the daemon", "of the module"):
        assert daemon.out.count(text) == 1


def test_a_huge_exception_makes_no_huge_log(run_app: Run) -> None:
    daemon = run_app(
        "from daemonkit import Daemon\napp = Daemon('app')\n"
        "@app.on_event\ndef handle(event):\n    raise ValueError('begin' + 'x' * 5_000_000)\n"
        "@app.on_start\ndef start():\n"
        "    app.put_event(1)\n    app.logger.info('y' * 50_000)\n"
    ).wait_ready()
    daemon.wait_for(r"ValueError: beginx+\.\.\. \(cut: \d{7} characters\)")
    daemon.wait_until(lambda: not daemon.status()["events_queue"])
    assert daemon.stop() == 0

    assert len(daemon.out) < 50_000 + 2 * 8_000 + 20_000
    assert "y" * 50_000 in daemon.out


# Before the start


BROKEN = {
    "raises": "raise ValueError('cannot use ' + app.config['t'])",
    "raises in a thread": (
        "import threading\n"
        "thread = threading.Thread(target=lambda: 1 / app.config['t'])\n"
        "def fail():\n    raise ValueError(app.config['t'])\n"
        "thread = threading.Thread(target=fail)\nthread.start()\nthread.join()\nraise SystemExit(1)"
    ),
    "isn't a daemon": "app = app.config['t'] * 20",
}


@pytest.mark.parametrize("where", ["--config", "Daemon(config=)"])
def test_an_import_that_fails_before_the_configuration_is_read_shows_no_secret(
    run_app: Run, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("PLANTED", PLAIN)
    config = "" if where == "--config" else ", config='cfg.yaml'"
    daemon = run_app(
        f"import os\nfrom daemonkit import Daemon\napp = Daemon('app'{config})\n"
        "raise ValueError('with ' + os.environ['PLANTED'])\n",
        *(("--config", "cfg.yaml") if where == "--config" else ()),
        cfg__yaml="t: !secret env:PLANTED\n",
    )

    assert daemon.wait() == 2
    assert f"ValueError: with {HIDDEN}" in daemon.err
    assert shows(daemon.err) == []


@pytest.mark.parametrize("style", ["daemonkit run", "python prog.py"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_module_that_fails_shows_no_secret(
    run_app: Run, spawn: Run, what: str, style: str
) -> None:
    text = (
        "from daemonkit import Daemon\napp = Daemon('app', config={})\n"
        "app.config.get('t') or app.configure(overrides=[])\n" + BROKEN[what]
    )
    if style == "daemonkit run":
        daemon = run_app(text, f"--set=t=!secret {PLAIN}")
    else:
        text = text.replace("config={}", "config='cfg.yaml'") + "\napp.start()\n"
        daemon = spawn("prog.py", prog__py=text, cfg__yaml=f"t: !secret {PLAIN}\n")

    assert daemon.wait() in (1, 2)
    assert daemon.err
    assert (shows(daemon.err), daemon.out) == ([], "")


@pytest.mark.parametrize(
    "line",
    [
        "a: !secret:{}",
        "a: !secret *{}",
        "a: !secret {}\nb: *c",
        "a: !secret{}",
        "a: !secret {}: x",
        "a: !secret '{}' x",
        "a: !secret {}\nmaster: {{queue_size: !secret {}}}",
        "a: !secret {}\nmaster: {{{}: 1}}",
        "a: !secret {}\nmaster: {{queue_size: '{}'}}",
        "!secret {}: 1\n!secret {}: 2",
        "master: {{juggler_url: 'ftp://user:{}@host'}}",
        "master: {{juggler_url: 'user:{}@host'}}",
    ],
)
def test_a_wrong_configuration_shows_no_secret(run_app: Run, line: str) -> None:
    text = line.format(*[PLAIN] * 2) + "\n"
    daemon = run_app(
        "from daemonkit import Daemon\napp = Daemon('app')\n", "--config=cfg.yaml", cfg__yaml=text
    )

    assert daemon.wait() == 2
    assert daemon.err.startswith("daemonkit: cfg.yaml:")
    assert shows(daemon.err) == []


def test_a_printed_unit_shows_no_secret_and_says_so(spawn: Run) -> None:
    daemon = spawn(
        *("-m", "daemonkit", "systemd", "mymod", "--set", f"a=!secret {PLAIN}"),
        *("--set", f'b=!secret "{PLAIN}$%"'),
        mymod__py="from daemonkit import Daemon\napp = Daemon('app')\n",
    )

    assert daemon.wait() == 0
    assert (shows(daemon.out), shows(daemon.err)) == ([], [])
    assert f"a=!secret {HIDDEN}" in daemon.out
    assert daemon.err == (
        f"daemonkit: replace {HIDDEN} in the unit; better, use !secret env:NAME or file:PATH\n"
    )


def test_displayed_dead_letters_show_no_secret(run_app: Run, spawn: Run) -> None:
    config = f"t: !secret {PLAIN}\nmaster: {{queue: QUEUE}}\n"
    text = "from daemonkit import Daemon\napp = Daemon('app')\n@app.on_event\ndef handle(event):\n"
    daemon = run_app(
        text + "    raise ValueError\n", "--config=cfg.yaml", cfg__yaml=config.replace("QUEUE", "q")
    )
    daemon.wait_ready()
    daemon.send_event({"key": f"Bearer {PLAIN}"})
    daemon.wait_until(lambda: daemon.status()["events"]["dead"])
    assert daemon.stop() == 0
    queue = config.replace("QUEUE", str(daemon.folder / "q"))
    listed = spawn("-m", "daemonkit", "events", "list", "-c", "cfg.yaml", cfg__yaml=queue)
    assert listed.wait() == 0
    number = listed.out.splitlines()[1].split()[0]
    shown = spawn("-m", "daemonkit", "events", "show", number, "-c", "cfg.yaml", cfg__yaml=queue)
    assert shown.wait() == 0

    for text in (listed.out, shown.out):
        assert shows(text) == []
        assert f"Bearer {HIDDEN}" in text
