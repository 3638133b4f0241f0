"A real JupyterLab and a real browser for tests: start both, open a notebook, run it, look at it."

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
LOOPBACK = ("http://127.0.0.1", "ws://127.0.0.1", "http://localhost", "file://", "data:", "blob:", "about:")


def chromium_path() -> str:
    "Where Chromium is; the test is skipped with the reason where there is none."
    found = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")) if p), None)
    if found is None:
        pytest.skip("no Chromium on the path: install one (apt install chromium) to run the tests in a browser")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    return found


@contextlib.contextmanager
def browser_page(width: int = 1280, height: int = 900) -> Iterator:
    "A page whose `.outside` lists every request that left the machine and `.mistakes` every error of a script."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), headless=True, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.outside, page.mistakes = [], []
        page.on("request", lambda r: page.outside.append(r.url) if not r.url.startswith(LOOPBACK) else None)
        page.on("pageerror", lambda e: page.mistakes.append(str(e)))
        try:
            yield page
        finally:
            browser.close()


def free_port() -> int:
    "A port that nobody listens on."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running_lab(project: Path, private: Path) -> Iterator[str]:
    "JupyterLab on a project with a token, in private folders; gives its address with `{}` for a notebook's name."
    from mlbench.lab import lab_command, lab_environment, quiet_lab_settings

    port, token = free_port(), secrets.token_hex(8)
    steady = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}, "@jupyterlab/docmanager-extension:plugin": {"autosave": False}}
    with quiet_lab_settings(steady) as config:
        environment = lab_environment(config) | {"MLBENCH_INTERACTIVE": "1"}
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"):
            environment[name] = str(private / name.lower())
        command = lab_command(project, port=port, browser=False, arguments=["--ip=127.0.0.1", f"--IdentityProvider.token={token}", "--allow-root"])
        private.mkdir(parents=True, exist_ok=True)
        log = open(private / "lab.log", "wb")  # noqa: SIM115
        process = subprocess.Popen(command, env=environment, cwd=project, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", process, private / "lab.log")
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}&reset"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            process.wait(20)
            log.close()


def _wait_for(address: str, process: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    "Wait until the server answers."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer within {seconds} s: {log.read_text()[-2000:]}")


def run_all(page, address: str, seconds: float = 90) -> None:
    "Open a notebook, wait for its kernel, run all cells and wait until they are done."
    page.goto(address)
    idle = "() => /\\| Idle/.test(document.querySelector('#jp-main-statusbar')?.innerText || '')"
    page.wait_for_function(idle, timeout=seconds * 1000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    done = """() => {
        const said = [...document.querySelectorAll("[data-mime-type='application/vnd.jupyter.stderr']")].map(e => e.innerText);
        const failed = said.find(text => text.includes('Traceback (most recent call last)'));
        if (failed) return failed;
        const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.innerText);
        return prompts.length && prompts.every(p => /\\[\\d+\\]/.test(p)) ? "done" : false }"""
    ended = page.wait_for_function(done, timeout=seconds * 1000).json_value()
    assert ended == "done", ended
    page.mistakes.clear()  # JupyterLab's own, while it starts on a busy machine: a question to a kernel that is not there yet


def press(page, target, key: str, times: int = 1) -> None:
    "Give a control the focus and press a key some times."
    target.scroll_into_view_if_needed()
    target.focus()
    for _ in range(times):
        page.keyboard.press(key)


def wait_until(condition, seconds: float = 20) -> None:
    "Wait for something that another process does."
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen within {seconds} s"
        time.sleep(0.1)
