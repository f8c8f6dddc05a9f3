"""Exported models read by other libraries, and by their page in a real browser."""

import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from playwright.sync_api import Page, sync_playwright

from metakd import Classifier, InputError
from metakd.data.tokenization import Array

CLIENTS = Path(__file__).parent / "clients"
OPTIMUM = Path(__file__).parents[1] / ".venv-optimum"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REQUIRED = os.environ.get("METAKD_CLIENTS") == "required"  # whether tests fail where Node, npm or Chromium are missing
PATIENCE = 120_000  # milliseconds, where other tests keep the machine busy


def missing(what: str) -> NoReturn:
    if REQUIRED:
        pytest.fail(what)
    pytest.skip(what)


def _said_by(program: list[object], folder: Path, how: str, texts: list[str]) -> Array:
    """(N, M), in the order of the labels."""
    command = [*map(str, program), str(folder), how]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array(
        [[answer[label] for label in Classifier.from_pretrained(folder).labels] for answer in json.loads(done.stdout)]
    )


def by_onnxruntime(folder: Path, texts: list[str]) -> Array:
    return _said_by([sys.executable, CLIENTS / "classify.py"], folder, "onnxruntime", texts)


def by_optimum(folder: Path, texts: list[str]) -> Array:
    if not ((OPTIMUM / ".installed").is_file() and (OPTIMUM / "bin" / "python").exists()):
        pytest.skip("Optimum is not installed; install it with `make test-extras`")
    return _said_by([OPTIMUM / "bin" / "python", CLIENTS / "classify.py"], folder, "optimum", texts)


def by_transformers_js(folder: Path, how: str, texts: list[str]) -> Array:
    """`how` is 'pipeline', 'windows' or 'labels'."""
    if not (CLIENTS / "node_modules").is_dir() or shutil.which("node") is None:
        missing("transformers.js is not installed; install it with `make clients`")
    return _said_by(["node", CLIENTS / "classify.mjs"], folder, how, texts)


@contextlib.contextmanager
def npm() -> Iterator[None]:
    """What is done inside is skipped where npm has no registry."""
    try:
        yield
    except InputError as error:
        if "npm" not in str(error) or (CLIENTS / "node_modules").is_dir():  # else npm has worked here
            raise
        missing(str(error))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def opened(site: Path, messages: list[str]) -> Iterator[Page]:
    """The page of the exports in `site`; nothing is asked of another address, and `messages` of the console stay
    empty."""
    if CHROMIUM is None:
        missing("no Chromium here: apt-get install chromium")
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address, elsewhere = f"http://127.0.0.1:{server.server_port}", list[str]()
        known = (address, "data:", "blob:")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        try:
            page = browser.new_page()
            page.set_default_timeout(PATIENCE)
            page.on("request", lambda sent: None if sent.url.startswith(known) else elsewhere.append(sent.url))
            page.on("console", lambda message: messages.append(message.text))
            page.on("pageerror", lambda error: messages.append(str(error)))
            page.goto(address)
            page.wait_for_selector("html[data-ready]")
            yield page
        finally:
            browser.close()
            server.shutdown()
    assert (elsewhere, messages) == ([], [])


def answers(page: Page, text: str) -> dict[str, float]:
    """What stands on the page after a text was typed: label -> percent."""
    page.get_by_label("Text").fill(text)
    page.wait_for_selector("html[data-ready]")
    rows = page.locator("#answers li").all()
    return {(spans := row.locator("span").all_inner_texts())[0]: float(spans[1].removesuffix(" %")) for row in rows}
