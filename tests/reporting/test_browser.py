"""The report in headless Chromium: nothing a model wrote runs, nothing is fetched, nothing is wider than a phone; the viewer
works by mouse, keyboard and search, and reads further steps where it may."""

import contextlib
import functools
import http.server
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import pytest

from r1jax.reporting import write_report

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (apt-get install chromium-driver)"
    ),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PHONE, LAPTOP = (390, 844), (1366, 768)


class Browser:
    """WebDriver, as far as it is needed."""

    def __init__(self, profile):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.root = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.root}/status")
                break
            assert time.monotonic() < until, "chromedriver does not answer"
            time.sleep(0.05)
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"], "binary": CHROMIUM}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""
        self.session = "/session/" + self.call("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def call(self, path, body, method="POST"):
        request = urllib.request.Request(
            self.root + self.session + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
        )
        try:
            return json.load(urllib.request.urlopen(request, timeout=120))["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:600]) from None

    def command(self, name, **parameters):
        return self.call("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def open(self, address, size=LAPTOP, dark=False):
        self.command(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=size == PHONE
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.call("/url", {"url": address})

    def js(self, script, *arguments):
        return self.call("/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, expression, seconds=90):
        until = time.monotonic() + seconds
        while not self.js(f"return {expression}"):
            assert time.monotonic() < until, f"never: {expression}"
            time.sleep(0.05)

    def press(self, *keys):
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("/actions", {"actions": [{"type": "key", "id": "keys", "actions": strokes}]})

    def complaints(self):
        return [entry["message"] for entry in self.call("/se/log", {"type": "browser"})]

    def close(self):
        with contextlib.suppress(Exception):
            self.command("Browser.close")  # chromedriver alone may leave it running
        self.driver.terminate()
        self.driver.wait()


@pytest.fixture(scope="module")
def browser():
    profile = tempfile.mkdtemp()
    browser = Browser(profile)
    yield browser
    browser.close()
    shutil.rmtree(profile, ignore_errors=True)


def page(workdir):
    return "file://" + os.path.abspath(write_report(workdir))


def seen_through(browser):
    """Scrolls through the page, so that every figure is drawn."""
    height = browser.js("return document.documentElement.scrollHeight")
    for y in range(0, height, 500):
        browser.js("scrollTo({top: arguments[0], behavior: 'instant'})", y)
        time.sleep(0.05)
    browser.wait("[...document.querySelectorAll('.plot')].every(place => place.querySelector('svg.main-svg'))")


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
@pytest.mark.parametrize("steps, complete", [(30, True), (17, False), (0, False)])
def test_a_page_fits_its_screen_does_not_jump_and_has_no_complaints(browser, make_run, size, steps, complete):
    workdir = make_run(steps, evaluations=4 if steps else 0, complete=complete, views=steps)
    browser.open(page(workdir), size, dark=complete)
    height = browser.js("return document.documentElement.scrollHeight")
    seen_through(browser)
    assert browser.js("return document.documentElement.scrollWidth") <= size[0]
    assert browser.js("return document.documentElement.scrollHeight") == height  # what is drawn later has its place
    wide = "return [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && "
    wide += "!e.closest('.scroll, svg, .numbers')).map(e => e.outerHTML.slice(0, 80))"
    assert browser.js(wide) == []
    assert browser.complaints() == []


ATTACK = (
    "<script>window.attacked = 1</script><img src=x onerror='window.attacked = 2'></script></textarea></pre><!-- "
    "\u2028 ${1} `</title><svg onload='window.attacked = 3'><a href='javascript:window.attacked=4'>x</a> </think> {{ 7*7 }}"
)


@pytest.mark.parametrize("views", [0, 3])
def test_nothing_that_a_model_wrote_runs(browser, make_run, views):
    workdir = make_run(4, completion=ATTACK, views=views)
    path = f"{workdir}/stages/r1_zero/evaluations/held_out-before/figures.json"
    figures = json.load(open(path)) | {"benchmark": ATTACK}
    json.dump(figures, open(path, "w"))
    metrics = f"{workdir}/stages/r1_zero/updates/000002/metrics.json"
    json.dump({"step": 2, f"reward_{ATTACK}": 0.5, ATTACK: 0.5, "loss": 0.1}, open(metrics, "w"))
    browser.open(page(workdir))
    seen_through(browser)
    for source in ("rollouts", "benchmarks"):
        browser.js(f"document.querySelector('[data-source={source}]').click()")
        assert ATTACK in browser.js("return document.querySelector('.sample pre').textContent")
    browser.js("document.querySelectorAll('.flip').forEach(button => button.click())")
    browser.js(
        "const s = document.querySelector('input[type=search]'); s.value = 'script>'; s.dispatchEvent(new Event('input'))"
    )
    browser.wait("document.querySelectorAll('.found li').length > 1")
    hover = "const p = document.querySelectorAll('.js-plotly-plot'); for (const one of p) Plotly.Fx.hover(one, [{curveNumber: one.data.length - 1, pointNumber: 0}])"
    with contextlib.suppress(AssertionError):  # a curve that skips hovering says so
        browser.js(hover)
    time.sleep(0.3)
    assert browser.js("return window.attacked") is None
    assert (
        browser.js("return document.querySelectorAll('main img, [onload], [onerror], main a[href^=javascript]').length") == 0
    )
    assert browser.complaints() == []


def test_the_viewer_by_mouse_keyboard_and_search(browser, make_run):
    browser.open(page(make_run(12, views=12)))
    label = "document.querySelector('.viewer output').textContent"
    assert browser.js(f"return {label}") == "step 11, rollout 11"
    browser.js("document.querySelector('.viewer input[type=range]').focus()")
    browser.press("\ue012")  # arrow left
    browser.wait(f"{label} === 'step 10, rollout 10'")
    first = "document.querySelector('.sample pre')"
    browser.js(f"{first}.focus()")
    browser.press("\ue014", "\ue014")  # arrow right, twice
    assert browser.js("return document.querySelector('.sample .at').dataset.i") == "1"
    assert " · p 0." in browser.js("return document.querySelector('.sample .token').textContent")
    colours = f"new Set([...{first}.querySelectorAll('span')].map(s => s.className.replace(' at', '').replace('at', '')))"
    assert browser.js(f"return [...{colours}]")[0][0] in "pn"  # by advantage, one of a sample
    browser.js(
        "const s = document.querySelector('.viewer select'); s.value = 'surprise'; s.dispatchEvent(new Event('change'))"
    )
    assert set(browser.js(f"return [...{colours}]")) <= {"", "s1", "s2", "s3", "s4"}
    browser.js(
        "const s = document.querySelectorAll('.viewer select')[1]; s.value = 'wrong'; s.dispatchEvent(new Event('change'))"
    )
    verdicts = "[...document.querySelectorAll('.sample .verdict')].map(v => v.textContent)"
    assert set(browser.js(f"return {verdicts}")) <= {"✗ wrong"}
    browser.js(
        "const s = document.querySelectorAll('.viewer select')[1]; s.value = ''; s.dispatchEvent(new Event('change'))"
    )
    browser.js(
        "const s = document.querySelector('input[type=search]'); s.value = '等等'; s.dispatchEvent(new Event('input'))"
    )
    browser.wait("document.querySelectorAll('.found button').length > 3")
    where = browser.js("const b = document.querySelector('.found button'); b.click(); return b.textContent")
    assert (
        where.startswith(browser.js(f"return {label}")) and browser.js("return document.querySelectorAll('.hit').length") > 0
    )
    assert browser.complaints() == []


def test_figures_have_tables_legends_and_two_colours(browser, make_run):
    browser.open(page(make_run(9)))
    seen_through(browser)
    background = "getComputedStyle(document.body).backgroundColor"
    light = browser.js(f"return {background}")
    browser.js("document.getElementById('theme').click(); document.getElementById('theme').click()")
    assert browser.js(f"return {background}") != light
    reward = "[...document.querySelectorAll('figure')].find(f => f.querySelector('h4').textContent === 'Reward')"
    curves = f"return {reward}.querySelector('.js-plotly-plot')._fullData.filter(t => t.visible === true).length"
    before = browser.js(curves)
    browser.js(f"{reward}.querySelector('.chip').click()")
    assert browser.js(curves) == before - 1
    rows = browser.js(f"const f = {reward}; f.querySelector('.flip').click(); return f.querySelectorAll('tbody tr').length")
    assert rows == 9
    assert browser.js(f"return {reward}.querySelector('.plot').getAttribute('aria-label')").startswith(
        "Reward against step. total:"
    )


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    servers = []

    def serve(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/report.html"

    yield serve
    for server in servers:
        server.shutdown()


def test_steps_that_the_page_does_not_hold_are_read_where_they_lie(browser, make_run, served, monkeypatch):
    monkeypatch.setattr("r1jax.reporting.viewer.MOST_ROLLOUTS", 3)
    workdir = make_run(20, views=20)
    path = write_report(workdir)
    browser.open(served(workdir))
    label = "document.querySelector('.viewer output').textContent"
    browser.js(
        "const s = document.querySelector('.viewer input[type=range]'); s.value = 7; s.dispatchEvent(new Event('input'))"
    )
    browser.wait(f"{label} === 'step 7, rollout 7' && document.querySelectorAll('.sample').length === 4")
    os.remove(f"{workdir}/stages/r1_zero/views/00008.json")
    browser.js(
        "const s = document.querySelector('.viewer input[type=range]'); s.value = 8; s.dispatchEvent(new Event('input'))"
    )
    browser.wait("document.querySelector('.viewer .elsewhere') !== null")
    browser.complaints()  # the browser's own line about the missing file
    # Opened as a file, where a page may not read its neighbours: it says so, and takes files by hand.
    browser.open(f"file://{path}")
    assert "This page holds 3 of 20 rollouts" in browser.js("return document.querySelector('.viewer details').textContent")
    assert browser.js("return document.querySelector('.viewer input[type=range]').max") == "2"
    element = browser.call("/element", {"using": "css selector", "value": ".viewer details input[accept]"})
    chosen = "\n".join(f"{workdir}/stages/r1_zero/views/{i:05d}.json" for i in (5, 6))
    browser.call(f"/element/{next(iter(element.values()))}/value", {"text": chosen})
    browser.wait(f"{label} === 'step 6, rollout 6'")
    assert browser.js("return document.querySelector('.viewer input[type=range]').max") == "4"
    assert browser.complaints() == []


def test_without_views_the_waves_themselves_are_read(browser, make_run, served, monkeypatch):
    monkeypatch.setattr("r1jax.reporting.viewer.MOST_ROLLOUTS", 2)
    workdir = make_run(21, completion=ATTACK)
    write_report(workdir)
    browser.open(served(workdir))
    browser.js("document.querySelector('.viewer .controls .button').click()")  # back from rollout 20 to 10
    browser.wait("document.querySelectorAll('.sample').length === 8")
    assert browser.js("return document.querySelector('.viewer output').textContent") == "step 10, rollout 10"
    assert browser.js("return document.querySelector('.sample pre').textContent") == ATTACK
    assert browser.js("return window.attacked") is None and browser.complaints() == []
