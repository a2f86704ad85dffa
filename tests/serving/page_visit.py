"""What the tests of the page share: the server process, a browser profile, what a user does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
expect = playwright.expect
expect.set_options(timeout=15_000)
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
VALUES = {"age": "71,5", "weight": "55", "height": "1.58"}
SENT = {"age": 71.5, "weight": 55, "height": 1.58, "smoker": 1, "female": 1}


@contextmanager
def serving(bundle: Path, **environment: str):
    """The server process, and where it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "osteofusion", "serve", str(bundle), "--port", str(port)]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, stderr=subprocess.PIPE
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, process.stderr.read().decode()
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        else:
            pytest.fail("the server did not become ready within 30 s")
        yield process, url
    finally:
        process.kill()
        process.wait()


class Visit:
    """A fresh browser profile that notes what it asks for and complains about."""

    def __init__(self, browser, **options) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _note(self, message) -> None:
        # Chromium writes every refused request to the console, however well the page handles it.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def open(self, url: str):
        self.page.goto(url)
        expect(self.page.locator("#estimate")).to_be_enabled()
        return self.page


def fill(page) -> None:
    for name, text in VALUES.items():
        page.fill(f"[name={name}]", text)
    page.locator("label[for=smoker-1]").click()
    page.locator("label[for=female-1]").click()


def estimate(page):
    page.click("#estimate")
    expect(page.locator("#risk")).to_be_visible()
    return float(page.locator("#risk").get_attribute("value"))


def explained(page) -> None:
    """Wait until map and attributions are there."""
    expect(page.locator("#attributions")).to_be_visible()
    expect(page.locator(".stage")).to_have_attribute("aria-busy", "false")


def asked(url: str, film: Path | None, values: dict) -> dict:
    """What the service answers a program."""
    files = {"values": (None, json.dumps(values))}
    if film is not None:
        files["image"] = ("image", film.read_bytes())
    return httpx.post(f"{url}/v1/predict", files=files).raise_for_status().json()


def overflow(page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def tab_to(page, element: str, most: int = 90) -> None:
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == element:
            return
    pytest.fail(f"Tab never reached #{element}")
