"""A headless Chromium that looks at the status page, driven by selenium."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from .tools import missing, need

ROOT = Path(__file__).parents[2]
AXE = ROOT / ".venv/npm/node_modules/axe-core/axe.min.js"
FLAGS = (
    "--headless",
    # The sandbox needs rights that a container or root doesn't have; the pages are our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
)
PHONE = (360, 740)
DESKTOP = (1280, 900)


class Page:
    """A browser's tab; every wait is for a condition, with an end."""

    def __init__(self, driver: Chrome, seconds: float = 60.0) -> None:
        self.driver = driver
        self.seconds = seconds

    def renew(self) -> Page:
        """Go on in a new tab, which shares no session storage and no emulation with the old one."""
        self.driver.switch_to.new_window("tab")
        new = self.driver.current_window_handle
        for handle in self.driver.window_handles:
            if handle != new:
                self.driver.switch_to.window(handle)
                self.driver.close()
        self.driver.switch_to.window(new)
        self.resize(*DESKTOP)
        self.errors()
        self.origins()
        return self

    def open(self, url: str) -> Page:
        self.driver.get(url)
        return self

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def use_scheme(self, scheme: str) -> None:
        """light or dark, as the system's setting."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a function's body in the page."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """What a reader sees of an element, "" if that is nothing."""
        script = """
            const node = document.querySelector(arguments[0]);
            return node && node.checkVisibility() ? node.innerText : "";
        """
        return str(self.run(script, selector))

    def find(self, selector: str) -> WebElement:
        """Wait until an element is visible."""
        script = "return !!document.querySelector(arguments[0])?.checkVisibility()"
        self.wait_until(lambda: self.run(script, selector), selector)
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        """Click on an element, in the middle of the window: bars stick to its edges."""
        node = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", node)
        node.click()

    def wait_for(self, text: str, selector: str = "body") -> str:
        """Wait until an element shows a text; returns all that it shows."""
        self.wait_until(lambda: text in self.text(selector), f"{text!r} in {selector}")
        return self.text(selector)

    def wait_until(self, condition: Any, what: str) -> Any:
        until = time.monotonic() + self.seconds
        while not (result := condition()):
            if time.monotonic() > until:
                raise AssertionError(f"there was no {what}; the page:\n{self.text('body')}")
            time.sleep(0.05)
        return result

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def tab_to(self, label: str) -> None:
        """Press Tab until the focus is on the control with this name."""
        for _ in range(200):
            if self.focused() == label:
                return
            self.press(Keys.TAB)
        raise AssertionError(f"Tab doesn't lead to {label!r}")

    def focused(self) -> str:
        """The name of what has the focus."""
        script = """
            const node = document.activeElement;
            return node.getAttribute("aria-label") ?? node.labels?.[0]?.innerText
                ?? node.innerText.slice(0, 100);
        """
        return str(self.run(script))

    def errors(self) -> list[str]:
        """What the browser complained about in the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def origins(self) -> set[str]:
        """The origins of all requests since the last call."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = urlsplit(message["params"]["request"]["url"])
                # The others are of the browser's own first tab.
                if address.scheme in ("http", "https", "ws", "wss"):
                    found.add(f"{address.scheme}://{address.netloc}")
        return found

    def violations(self) -> list[str]:
        """What axe-core finds wrong with the accessibility."""
        if not AXE.exists():
            missing("axe-core")
        self.run(AXE.read_text("utf-8"))
        found = self.driver.execute_async_script(
            "axe.run(document, {resultTypes: ['violations']}).then(arguments[0])"
        )
        return [
            f"{rule['id']}: {rule['help']}: {node['html']}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """Start a browser with a new profile in this folder."""
    need("chromium", "chromedriver")
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={DESKTOP[0]},{DESKTOP[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(str(shutil.which("chromedriver")), env=_environment())
    driver = Chrome(options=options, service=service)
    try:
        yield Page(driver).renew()
    finally:
        driver.quit()


def _environment() -> dict[str, str]:
    """Without the proxies of the user's environment, which don't lead to this machine."""
    return {key: text for key, text in os.environ.items() if not key.lower().endswith("_proxy")}
