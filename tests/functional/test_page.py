"""The status page in a real browser, of a real daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from .browser import PHONE, Page, browsing
from .process import Process

DAEMON = r"""
from daemonkit import Daemon

app = Daemon("billing")
tried = []
HOSTILE = "<script>window.ran = 1</script><img src=x onerror=window.ran=1>\u202e\ud800\x1b[31m\0"

@app.slave
def connection(slave):
    slave.shutdown.wait()

@app.slave(every=3600, after="connection")
def sweep(slave):
    slave.logger.info("called")

@app.slave(after="sweep", restart="never", critical=False, name="<b>" + HOSTILE)
def broken(slave):
    if app.config.get("broken"):
        raise ValueError(HOSTILE * 100)

@app.on_event
def handle(event):
    tried.append(event)
    if event != "flaky" or tried.count(event) == 1:
        raise LookupError(f"no account: {event}")

@app.status_field
def total():
    return 5231

@app.status_field(name=HOSTILE)
def hostile():
    deep = None
    for _ in range(90):
        deep = [deep]
    return {"text": HOSTILE, "long": "x" * 2_000_000, "many": list(range(50_000)), "deep": deep}
"""
STALLED = """
import threading
from daemonkit import Daemon

app = Daemon("billing")

def wait_for_ever():
    threading.Event().wait()

@app.slave(timeout=0.2)
def poller(slave):
    slave.heartbeat()
    wait_for_ever()
"""
READ_TOKEN, ONCALL_TOKEN = "read-read-read-read-1", "oncall-oncall-oncall-1"
TOKENS = f"""
master:
    tokens:
        reader: {{token: !secret "{READ_TOKEN}", may: [read]}}
        oncall: {{token: !secret "{ONCALL_TOKEN}", may: [read, control]}}
"""
OK = "✓ OK"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Page:
    return browser.renew()


@pytest.fixture
def start(spawn: Callable[..., Process]) -> Callable[..., Process]:
    """Start the daemon."""

    def started(config: str = "", *options: str, text: str = DAEMON, port: int = 0) -> Process:
        command = ("-m", "daemonkit", "run", "mymod", "--port", str(port), "--config", "cfg.yaml")
        files = {"mymod__py": text, "cfg__yaml": config or "broken: false"}
        return spawn(*command, *options, **files).wait_ready()

    return started


def fail_events(process: Process, *events: str) -> None:
    """Send events that become dead letters."""
    before = process.status()["events"]["dead"]
    for event in events:
        process.send_event(event)
    process.wait_until(lambda: process.status()["events"]["dead"] == before + len(events))


def dead_letters(process: Process, headers: dict[str, str] | None = None) -> int:
    """How many there are now."""
    answer = process.get("/status/failed", headers=headers).json()["message"]
    return int(answer["count"])


def test_it_shows_what_the_status_says(start, page: Page) -> None:
    daemon = start()
    fail_events(daemon, "an order")
    status = daemon.status()

    page.open(daemon.url + "/")

    page.wait_for(OK, "#health")
    assert page.text("h1") == status["name"]
    assert f"pid {status['pid']}" in page.text("#facts")
    slaves = "return [...document.querySelectorAll('#slaves tbody .name')].map(n => n.innerText)"
    assert page.run(slaves)[:2] == ["connection", "sweep"]
    assert "running" in page.text("#slaves")
    assert "5,231" in page.text("#fields")
    page.wait_for("LookupError", "#failed")
    page.wait_for("The event handler failed (about an event", "#warnings")
    page.wait_for("received", "#plots table")
    page.click("#config summary")
    page.wait_for("master.port", "#config")
    label = "return document.querySelector('#plots svg[role=img]').getAttribute('aria-label')"
    assert page.run(label).startswith("Events per second, last 15 minutes: received now ")
    assert "(1)" in page.text("nav")


def test_text_of_others_is_never_run(start, page: Page) -> None:
    daemon = start("broken: true")
    fail_events(daemon, "<script>window.ran = 1</script>", "\u202e<img src=x onerror=window.ran=1>")

    page.open(daemon.url + "/")

    page.wait_for("has failed", "#health")
    page.wait_for("LookupError", "#failed")
    page.wait_for("<script>window.ran = 1</script>", "#fields")
    page.run("for (const b of document.querySelectorAll('[data-verb=details]')) b.click()")
    page.run("for (const d of document.querySelectorAll('details')) d.open = true")
    page.click("#failed [data-verb=show]")
    page.wait_for("onerror=window.ran=1", "#failed .details")
    assert page.run("return window.ran ?? null") is None
    assert page.run("return document.images.length + document.scripts.length") == 1
    unseen = r"return /[\u202e\0\x1b]|\p{Cs}/u.test(document.body.textContent)"
    assert page.run(unseen) is False
    # 2 MB and 50,000 numbers are there, but not shown whole.
    assert page.run("return document.body.textContent.length") < 200_000
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert page.errors() == []
    assert page.origins() == {daemon.url}
    assert page.violations() == []


def test_it_is_accessible(start, page: Page) -> None:
    daemon = start()
    fail_events(daemon, "an order")
    page.open(daemon.url + "/")
    page.wait_for("LookupError", "#failed")
    page.run("for (const b of document.querySelectorAll('[data-verb=details]')) b.click()")
    page.run("for (const d of document.querySelectorAll('details')) d.open = true")

    assert page.violations() == []
    page.use_scheme("dark")
    assert page.violations() == []
    page.resize(*PHONE)
    assert page.violations() == []
    assert page.run("return document.documentElement.scrollWidth") == PHONE[0]
    daemon.stop()
    page.wait_for("No answer since", "#health")
    assert page.violations() == []


def test_a_dead_letter_is_retried_by_keyboard_alone(start, page: Page) -> None:
    daemon = start()
    fail_events(daemon, "an order", "flaky")
    page.open(daemon.url + "/")
    page.wait_for("LookupError", "#failed")

    page.tab_to("Retry event 2")
    page.press(Keys.ENTER)

    assert "is retried" in page.wait_for("retry", "#outcome")
    page.wait_until(lambda: daemon.status()["events"]["handled"] == 1, "handled event")
    page.wait_for("1 dead letter.", "#failed-count")
    page.wait_for("retry 2", "#actions")
    # The focus went to the row that took its place, not to the top of the page.
    assert page.focused() == "Retry event 1"
    assert page.errors() == []


def test_dropping_asks_first_and_can_be_cancelled(start, page: Page) -> None:
    daemon = start()
    fail_events(daemon, "an order", "another")
    page.open(daemon.url + "/")
    page.wait_for("LookupError", "#failed")

    page.tab_to("Drop event 1")
    page.press(Keys.ENTER)

    assert "Drop event 1?" in page.wait_for("undone", "dialog")
    assert page.focused() == "Cancel"
    assert page.violations() == []
    page.press(Keys.ESCAPE)
    page.wait_until(lambda: page.text("dialog") == "", "closed dialog")
    assert page.focused() == "Drop event 1"
    assert dead_letters(daemon) == 2
    # A press that comes too soon is taken for a part of a double click.
    page.wait_until(lambda: page.press(Keys.ENTER) or page.text("dialog"), "dialog")
    page.press(Keys.TAB, Keys.ENTER)
    page.wait_until(lambda: dead_letters(daemon) == 1, "dropped event")
    page.wait_for("1 dead letter", "#failed-count")
    assert page.focused() == "Drop event 2"


def test_failed_events_are_retried_and_dropped_by_a_filter(start, page: Page) -> None:
    daemon = start(TOKENS)
    headers = {"Authorization": f"Bearer {ONCALL_TOKEN}"}
    for number in range(30):
        daemon.send_event(f"{'odd' if number % 2 else 'even'} {number}")
    page.open(daemon.url + "/")
    page.find("#token").send_keys(ONCALL_TOKEN, Keys.ENTER)
    page.wait_for("30 dead letters", "#failed-count")
    page.click("#failed-older")
    page.wait_for("older ones", "#failed-count")

    page.find("#failed-error").send_keys("even", Keys.ENTER)
    page.wait_for("15 dead letters", "#failed-count")
    page.click("#drop-all")
    page.wait_for("Drop 15 dead letters", "dialog")
    page.click("#confirm-yes")

    page.wait_until(lambda: dead_letters(daemon, headers) == 15, "drop")
    page.wait_for("No dead letters", "#failed-count")


def test_a_double_click_acts_once(start, page: Page) -> None:
    daemon = start()
    page.open(daemon.url + "/")
    button = page.find("[data-verb=run-now]:not([hidden])")
    page.run("arguments[0].scrollIntoView({block: 'center'})", button)

    ActionChains(page.driver).double_click(button).perform()

    page.wait_for("run-now sweep", "#outcome")
    page.wait_for("run-now sweep", "#actions")
    assert [action["action"] for action in daemon.status()["actions"]] == ["run-now sweep"]


def test_pauses_levels_stacks_and_a_failed_reload(start, page: Page, tmp_path: Path) -> None:
    daemon = start()
    page.open(daemon.url + "/")

    page.click("#pause-events")
    assert "events (by 127.0.0.1" in page.wait_for("Paused", "#health")
    page.wait_for("Resume events", "#pause-events")
    # A click that comes too soon is taken for a part of a double click.
    page.wait_until(lambda: page.click("#pause-events") or OK in page.text("#health"), OK)
    page.wait_until(lambda: page.click("#level button") or daemon.status()["levels"], "level")
    page.wait_for("billing: DEBUG until", "#control-state")
    page.click("[data-verb=details]")
    stack = "#slaves .details:not([hidden]) pre:last-child"
    page.wait_until(lambda: page.click("[data-verb=stack]") or page.text(stack), "stack")

    (tmp_path / "0" / "cfg.yaml").write_text("broken: [\n")
    daemon.send_signal(signal.SIGHUP)
    page.wait_for("the old configuration stays", "#control-state")

    assert "mymod.py" in page.text(stack)
    assert page.errors() == []


def test_a_stalled_slave_s_stack_is_among_the_warnings(start, page: Page) -> None:
    daemon = start(text=STALLED)
    daemon.wait_until(lambda: daemon.status()["problems"])
    page.open(daemon.url + "/")
    page.wait_for("is stalled", "#warnings")
    page.click("#warnings summary")

    assert "wait_for_ever()" in page.wait_for("mymod.py", "#warnings pre")
    assert page.errors() == []


def test_it_says_that_the_daemon_is_gone_and_that_another_one_answers(start, page: Page) -> None:
    daemon = start()
    page.open(daemon.url + "/")
    page.wait_for(OK, "#health")
    port, pid = daemon.port, daemon.status()["pid"]

    assert daemon.stop() == 0

    page.wait_for("What is shown is from then", "#health")
    assert page.run("return document.body.classList.contains('stale')")
    page.wait_until(lambda: "No answer" in page.driver.title, "title")
    page.click("#reload")
    page.wait_for("Not sent", "#outcome")
    other = start(port=port)
    said = page.wait_for("another process answers", "#replaced")
    assert f"pid {other.status()['pid']} " in said
    assert f"before pid {pid} " in said
    page.wait_for(OK, "#health")
    assert not page.run("return document.body.classList.contains('stale')")


def test_a_daemon_that_is_away_at_first_is_found(start, page: Page) -> None:
    daemon = start()
    page.open(daemon.url + "/ready")
    # As if the page were open, and the daemon had gone before it could answer.
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/status"]})
    page.open(daemon.url + "/")
    page.wait_for("from the daemon: no connection", "#health")

    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})

    page.wait_for(OK, "#health")


def test_a_daemon_that_hangs_is_not_shown_as_healthy(start, page: Page) -> None:
    daemon = start()
    page.open(daemon.url + "/")
    page.wait_for(OK, "#health")

    os.kill(daemon.popen.pid, signal.SIGSTOP)
    page.wait_for("No answer since", "#health")
    os.kill(daemon.popen.pid, signal.SIGCONT)

    page.wait_for(OK, "#health")


def test_stopping_asks_and_is_shown(start, page: Page) -> None:
    daemon = start()
    page.open(daemon.url + "/")
    page.click("#stop")
    page.wait_for("Stop billing?", "dialog")

    page.click("#confirm-yes")

    assert daemon.wait() == 0
    page.wait_for("The daemon is stopping", "#outcome")
    page.wait_for("No answer", "#health")


def test_a_guarded_page_is_an_empty_frame_until_there_is_a_token(start, page: Page) -> None:
    daemon = start(TOKENS)

    page.open(daemon.url + "/")

    page.wait_for("Token", "#login")
    assert "billing" not in page.driver.page_source
    assert page.violations() == []
    page.press("w" * 20, Keys.ENTER)
    page.wait_for("This token isn't accepted", "#login-error")
    page.press(READ_TOKEN, Keys.ENTER)
    page.wait_for(OK, "#health")
    assert "not to control" in page.text("#rights")
    assert page.text("#stop") == page.text("[data-verb=restart]") == ""
    page.open(daemon.url + "/")
    page.wait_for(OK, "#health")
    assert page.driver.get_cookies() == []
    assert page.run("return localStorage.length") == 0
    log = page.driver.get_log("performance")
    addresses = [entry["message"] for entry in log if '"url":' in entry["message"]]
    assert not any(f"?{READ_TOKEN}" in text or f"={READ_TOKEN}" in text for text in addresses)
    page.click("#forget-token")
    page.wait_for("Token", "#login")
    assert page.run("return sessionStorage.length") == 0
    page.find("#token").send_keys(ONCALL_TOKEN, Keys.ENTER)
    page.wait_for("Stop the daemon", "#stop")


def test_a_status_of_any_form_is_shown(start, page: Page) -> None:
    text = """
from daemonkit import Daemon

class Odd(Daemon):
    def status(self):
        return self.config["status"]

app = Odd()
"""
    daemon = start("status: all is well", text=text)

    page.open(daemon.url + "/")

    page.wait_for("all is well", "#fields")
    assert "says the health check" in page.wait_for(OK, "#health")
    assert "There are no buttons" in page.text("#rights")
    assert "The status lists no slaves." in page.text("#slaves")
    assert page.errors() == []
    assert page.violations() == []
