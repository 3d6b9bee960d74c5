#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The web page of `icp-bpf serve`, in a real Chromium, on a real process that writes.

Pictures of it are left in build/tests/web/pictures. Run by tests/run; by hand: ICP_BUILD=build tests/web/page.py [NAME...]
"""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from browser import Browser, Failed, SLOW  # noqa: E402

BUILD = os.path.realpath(os.environ.get("ICP_BUILD", "build"))
PICTURES = os.path.join(BUILD, "tests", "web", "pictures")
LIGHT, DARK = [("prefers-color-scheme", "light")], [("prefers-color-scheme", "dark")]
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def check(what, why):
    if not what:
        raise Failed(why)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, **headers):
    """Status, headers, body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SLOW) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@contextlib.contextmanager
def ended(process, how=signal.SIGTERM):
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(how)
        try:
            process.wait(SLOW)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed(f"{process.args[0]} did not end") from None


@contextlib.contextmanager
def painters(n, program=f"{BUILD}/tests/targets/painter"):
    with contextlib.ExitStack() as all_of_them:
        made = []
        for _ in range(n):
            child = subprocess.Popen([program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            made.append(all_of_them.enter_context(ended(child, signal.SIGKILL)))
            check(child.stdout.readline() == b"ready\n", "the painter is not ready")
            child.stdout.close()
        yield made


@contextlib.contextmanager
def serving(*options, port=None):
    """icp-bpf serve; gives its address once it answers."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}/"
    command = [f"{BUILD}/icp-bpf", "serve", "--listen", f"127.0.0.1:{port}", *map(str, options)]
    with tempfile.TemporaryFile() as log:
        with ended(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)) as daemon:
            end = time.monotonic() + SLOW
            while True:
                with contextlib.suppress(OSError):
                    if get(url + "-/healthy")[0] == 200:
                        break
                log.seek(0)
                check(daemon.poll() is None and time.monotonic() < end, f"serve: {log.read().decode()}")
                time.sleep(0.1)
            yield url


def clean(page, url):
    """No error was logged, and nothing was asked of anybody else."""
    check(not page.problems, f"the page complains: {page.problems}")
    elsewhere = [r for r in page.requests if not r.startswith((url, "data:", "about:"))]
    check(not elsewhere, f"requests to elsewhere: {elsewhere}")


LIVE = "document.getElementById('connection')?.dataset.state === 'live'"
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
CHART = "[...Chart.getChart(document.querySelector('#rate canvas')).data.datasets]"
# Colours that the canvas of the heat map has, beyond those of the empty one.
SHADES = """(() => {
    const { width, height } = document.querySelector('#heat canvas');
    const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
    copy.drawImage(document.querySelector('#heat canvas'), 0, 0);
    const { data } = copy.getImageData(0, 0, width, height);
    return new Set(new Uint32Array(data.buffer)).size;
})()"""


# The texts whose contrast with what is behind them is too low: [ratio, text].
FAINT = """(() => {
    const luminance = (color) => {
        const [r, g, b] = color.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const pixel = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const read = (color) => {  // any notation of CSS
        pixel.clearRect(0, 0, 1, 1);
        pixel.fillStyle = color;
        pixel.fillRect(0, 0, 1, 1);
        return [...pixel.getImageData(0, 0, 1, 1).data];
    };
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const color = read(getComputedStyle(node).backgroundColor);
            if (color[3] === 255) return color;
        }
        return [255, 255, 255];
    };
    const faint = [];
    for (const node of document.querySelectorAll('body *')) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        if (!own || !node.checkVisibility() || node.closest('.hidden, noscript')) continue;
        const [a, b] = [read(getComputedStyle(node).color), behind(node)].map((c) => luminance(c.slice(0, 3)));
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) faint.push([ratio.toFixed(2), node.textContent.slice(0, 40)]);
    }
    return faint;
})()"""


def column(page, table, name):
    """What the table shows in a column, as numbers where it is numbers with a unit."""
    texts = page.js(f"""[...document.querySelectorAll('#{table} tbody tr')].map((tr) =>
        tr.cells[[...tr.closest('table').querySelectorAll('thead th')].findIndex((th) => th.dataset.column === '{name}')].textContent)""")
    units = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

    def number(text):
        words = text.replace(",", "").replace("/s", "").split()
        return float(words[0]) * units.get(words[-1], 1)

    return [number(text) if re.match(r"[0-9][0-9,.]*( |/|$)", text) else text for text in texts]


@test
def page_without_a_process(browser):
    with serving("--match", "^no such process at all$") as url:
        page = browser.page(url)
        page.until(LIVE)
        page.until("!document.getElementById('no-process').hidden")
        check("No process is followed now" in page.js("document.body.innerText"), "it does not say that there is none")
        page.picture(f"{PICTURES}/no-process.png")
        clean(page, url)
        page.close()


@test
def chart_moves_and_map_fills(browser):
    with painters(2) as made, serving("--interval", "0.5s", *sum((["--pid", p.pid] for p in made), [])) as url:
        page = browser.page(url, features=LIGHT)
        page.until(LIVE)
        page.until(f"{CHART}.length === 2 && {CHART}.every((set) => set.data.length > 16)", "two lines of more than 16 samples")
        before = page.js("document.querySelector('#rate canvas').toDataURL()")
        last = page.js(f"{CHART}[0].data.at(-1).x")
        page.until(f"{CHART}[0].data.at(-1).x > {last}", "another sample in the chart")
        check(page.js(f"{CHART}.every((set) => set.data.some(({{ y }}) => y > 0))"), "a line is flat")
        page.until(f"document.querySelector('#rate canvas').toDataURL() !== {json.dumps(before)}", "the chart moves")
        page.until("Number(document.getElementById('heat').dataset.cells) > 20", "cells of the heat map")
        page.until(f"{SHADES} > 20", "shades in the heat map")
        names = page.js("document.getElementById('heat').getAttribute('aria-label')")
        check("[heap]" in names, f"no name of a mapping at the map: {names}")
        page.until("[...document.querySelectorAll('.frame')].some((f) => f.textContent === 'paint_page')", "the function that writes")
        page.until("document.querySelectorAll('#area-table tbody tr').length > 2", "memory areas")
        page.until("document.querySelectorAll('#segment-table tbody tr:not(.empty)').length === 1", "a segment")
        page.until("document.querySelector('#wws .value').textContent.endsWith('iB')", "a working set")
        page.until("/[0-9]/.test(document.querySelector('#forecast').innerText)", "a forecast")
        page.picture(f"{PICTURES}/light.png")
        clean(page, url)
        page.media(DARK)
        page.until("getComputedStyle(document.body).color === 'rgb(228, 231, 234)'", "dark colours")
        page.until(f"{SHADES} > 20", "shades in the dark")
        page.picture(f"{PICTURES}/dark.png")
        page.resize(360, 740)
        page.until(FITS, "no scrolling sideways at 360 pixels")
        page.picture(f"{PICTURES}/phone-dark.png")
        page.media(LIGHT)
        page.until("getComputedStyle(document.body).color === 'rgb(27, 31, 35)'", "light colours")
        page.until(FITS)
        page.picture(f"{PICTURES}/phone-light.png")
        clean(page, url)
        page.close()


@test
def tables_sort_by_mouse_and_keys(browser):
    with painters(3) as made, serving(*sum((["--pid", p.pid] for p in made), [])) as url:
        page = browser.page(url)
        page.until("document.querySelectorAll('#process-table tbody th').length === 3", "three processes")
        pids = sorted(p.pid for p in made)
        head = "#process-table th[data-column=pid] button"
        page.click(head)
        check(column(page, "process-table", "pid") == pids[::-1], "a click does not sort from the greatest")
        page.click(head)
        check(column(page, "process-table", "pid") == pids, "another click does not turn it round")
        page.js("document.querySelector('#process-table th[data-column=name] button').focus()")
        page.key("Tab")
        check(page.js(f"document.activeElement === document.querySelector('{head}')"), "Tab does not lead to the next head")
        page.key("Enter")
        check(column(page, "process-table", "pid") == pids[::-1], "Enter does not sort")
        order = page.js("document.querySelector('#process-table th[data-column=pid]').getAttribute('aria-sort')")
        check(order == "descending", f"the order is not told: {order}")
        page.until("document.querySelectorAll('#area-table tbody tr:not(.empty)').length > 2", "memory areas")
        page.click("#area-table th[data-column=start] button")
        starts = column(page, "area-table", "start")
        check(starts == sorted(starts) and len(starts) > 2, f"memory areas are not sorted: {starts}")
        clean(page, url)
        page.close()


@test
def everything_by_keyboard(browser):
    with painters(2) as made, serving("--interval", "0.5s", *sum((["--pid", p.pid] for p in made), [])) as url:
        page = browser.page(url)
        page.until("Number(document.getElementById('heat').dataset.cells) > 20")
        page.key("Tab")
        check(page.js("document.activeElement.className") == "skip", "Tab does not begin with the link that skips")
        check(page.js("document.activeElement.getBoundingClientRect().top") >= 0, "that link can't be seen")
        page.key("Enter")
        page.until("document.activeElement.id === 'processes'", "the link leads to the processes")
        other = page.js("[...document.querySelectorAll('#process-table tr:not(.open) button.open')].at(-1).textContent")
        page.js("document.querySelector('#process-table tbody tr:not(.open) button.open').focus()")
        ring = page.js("getComputedStyle(document.activeElement).outlineStyle")
        check(ring != "none", f"the focus can't be seen ({other})")
        before = page.js("document.getElementById('detail-name').textContent")
        page.key("Enter")
        page.until(f"document.getElementById('detail-name').textContent !== {json.dumps(before)}", "Enter opens another process")
        page.until("document.getElementById('detail').ariaBusy === 'false'", "all of it")
        page.js("document.getElementById('heat').focus()")
        page.until("Number(document.getElementById('heat').dataset.cells) > 20")
        page.key("ArrowDown")
        first = page.until("document.getElementById('heat-readout').textContent", "what is under the cursor")
        page.key("ArrowDown")
        page.until(f"document.getElementById('heat-readout').textContent !== {json.dumps(first)}", "the cursor moves")
        page.until("document.querySelectorAll('.frame').length > 2")
        page.js("document.querySelector('.frame[tabindex=\"0\"]').focus()")
        page.key("ArrowDown")
        page.until("document.activeElement.getAttribute('aria-level') === '2'", "an arrow goes down the stack")
        page.key("Enter")
        page.until("document.querySelector('.frame.outer') !== null", "Enter shows a frame in full width")
        page.key("Escape")
        page.until("!document.querySelector('.frame.outer')", "Escape goes back")
        clean(page, url)
        page.close()


@test
def readable_and_named(browser):
    with painters(1) as made, serving("--interval", "0.5s", "--pid", made[0].pid) as url:
        page = browser.page(url)
        page.until("document.querySelectorAll('.frame').length > 2")
        page.until("document.getElementById('detail').ariaBusy === 'false'")
        for features in (LIGHT, DARK, LIGHT + [("prefers-contrast", "more")], DARK + [("prefers-contrast", "more")]):
            page.media(features)
            faint = page.js(FAINT)
            check(not faint, f"{features}: hard to read: {faint}")
        roles = {"button", "link", "textbox", "img", "image", "region", "application", "treeitem", "tree", "table"}
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        seen = [n for n in nodes if not n["ignored"] and n["role"]["value"] in roles]
        check({"button", "treeitem", "region"} <= {n["role"]["value"] for n in seen}, "parts of the page are not told")
        nameless = [n["role"]["value"] for n in seen if not n.get("name", {}).get("value")]
        check(not nameless, f"without a name: {nameless}")
        levels = page.js("[...document.querySelectorAll('h1, h2, h3')].filter((h) => h.checkVisibility()).map((h) => Number(h.tagName[1]))")
        check(levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:])), f"headings leave out a level: {levels}")
        clean(page, url)
        page.close()


@test
def versions_and_what_they_cost(browser):
    with painters(1) as made, tempfile.TemporaryDirectory(prefix="icp-web-") as top, \
            serving("--interval", "0.5s", "--pid", made[0].pid) as url:
        page = browser.page(url)
        page.until("document.getElementById('detail-name').textContent.startsWith('painter')")
        for _ in range(3):
            subprocess.run([f"{BUILD}/icp-bpf", "checkpoint", "--pid", str(made[0].pid), "--dir", f"{top}/v", "--no-restart"],
                           check=True, stdin=subprocess.DEVNULL, timeout=SLOW)
        page.until("document.querySelectorAll('#version-table tbody tr:not(.empty)').length === 3", "three versions")
        check(sorted(column(page, "version-table", "version")) == [1, 2, 3], "other versions")
        check(column(page, "version-table", "type").count("full") == 1, "not one full version")
        check(all(size > 0 for size in column(page, "version-table", "bytes")), "a version without a size")
        page.until("Chart.getChart(document.querySelector('#versions canvas')).data.datasets[1].data.length === 3")
        page.until("document.getElementById('forecast-note').textContent.includes('ncrement')", "the next one is an increment")
        page.picture(f"{PICTURES}/versions.png")
        clean(page, url)
        page.close()


@test
def connection_lost_and_back(browser):
    port = free_port()
    with painters(1) as made:
        with serving("--pid", made[0].pid, port=port) as url:
            page = browser.page(url)
            page.until(LIVE)
        page.until("document.getElementById('connection').dataset.state === 'lost'", "it says that the connection is lost")
        page.until("document.body.classList.contains('stale')")
        page.picture(f"{PICTURES}/lost.png")
        with serving("--pid", made[0].pid, port=port) as url:
            page.until(LIVE, "it connects again")
            page.until("!document.body.classList.contains('stale')")
            page.until(f"{CHART}.length === 1")
            page.close()


@test
def asks_for_a_token(browser):
    with painters(1) as made, tempfile.TemporaryDirectory(prefix="icp-web-") as top:
        path = f"{top}/token"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
            file.write("correct-horse-battery\n")
        with serving("--pid", made[0].pid, "--token-file", path) as url:
            page = browser.page(url)
            page.until("document.getElementById('token-dialog').open", "the dialog for the token")
            page.picture(f"{PICTURES}/token.png", whole=False)
            page.type("wrong one")
            page.key("Enter")
            page.until("document.getElementById('token-wrong').textContent.length > 0", "that the token is wrong")
            page.type("correct-horse-battery")
            page.key("Enter")
            page.until(LIVE, "live data with the token")
            check(not page.js("document.getElementById('token-dialog').open"), "the dialog stays")
            check("correct" not in page.js("location.href + document.cookie + JSON.stringify(localStorage)"), "the token is kept elsewhere")
            page.call("Page.reload")
            page.until(LIVE, "live data after a reload, without asking again")
            page.close()


@test
def processes_that_end_and_come(browser):
    with painters(1) as first:
        name = f"p{first[0].pid}"
        with tempfile.TemporaryDirectory(prefix="icp-web-") as top:
            os.symlink(f"{BUILD}/tests/targets/painter", f"{top}/{name}")
            with serving("--match", f"^{name}$", "--interval", "0.5s") as url:
                page = browser.page(url)
                page.until("!document.getElementById('no-process').hidden", "that there is no process")
                with painters(1, f"{top}/{name}") as made:
                    page.until(f"document.getElementById('detail-name').textContent === '{name} {made[0].pid}'", "the process")
                    page.until("document.getElementById('detail').ariaBusy === 'false'", "all of it")
                    page.until("document.querySelectorAll('#area-table tbody tr:not(.empty)').length > 2", "memory areas")
                page.until("document.getElementById('detail-state').textContent.includes('has ended')", "that it has ended")
                page.until("!document.getElementById('no-process').hidden", "that there is none any more")
                areas = page.js("document.querySelectorAll('#area-table tbody tr:not(.empty)').length")
                check(areas > 2, "what was seen last is gone")
                page.picture(f"{PICTURES}/ended.png")
                page.close()


@test
def names_are_text(browser):
    with tempfile.TemporaryDirectory(prefix="icp-web-") as top:
        program = f"{top}/<i>&\"'x"
        os.symlink(f"{BUILD}/tests/targets/painter", program)
        with painters(1, program) as made, serving("--pid", made[0].pid) as url:
            page = browser.page(url)
            page.until("document.querySelectorAll('#process-table tbody th').length === 1")
            shown = page.js("document.querySelector('#process-table tbody th').textContent")
            check(shown.startswith("<i>&\"'x"), f"another name: {shown}")
            page.until("document.querySelectorAll('.frame').length > 1", "a flame graph")
            check(page.js("document.querySelector('main i:not(.bar > i)')") is None, "a name became an element")
            clean(page, url)
            page.close()


@test
def numbers_and_events_are_read(browser):
    with serving("--match", "^no such process at all$") as url:
        page = browser.page(url)
        page.until(LIVE)
        for call, text in (("bytes(0)", "0 B"), ("bytes(999)", "999 B"), ("bytes(1000)", "0.98 KiB"), ("bytes(1536)", "1.50 KiB"),
                           ("bytes(999.4 * 2 ** 20)", "999 MiB"), ("bytes(3 * 2 ** 40)", "3.00 TiB"), ("bytes(null)", "–"),
                           ("rate(17.14 * 2 ** 20)", "17.1 MiB/s"), ("seconds(0.00344)", "3.44 ms"), ("seconds(26.6)", "27 s"),
                           ("seconds(86400)", "24 h"), ("seconds(5400)", "1 h 30 min"), ("count(1234567)", "1,234,567"),
                           ("percent(0.00031)", "0.031 %"), ("percent(0.498)", "49.8 %")):
            shown = page.js(f"import('/format.js').then((m) => m.{call})")
            check(shown == text, f"{call} is {shown}, not {text}")
        # However the bytes are cut, the events are the same.
        stream = "event: a\nid: 1\ndata: {\"x\":1}\n\n: keep\n\ndata: two\r\ndata: lines ü\r\n\r\nevent: cut"
        for step in (1, 2, 3, 7, 1000):
            got = page.js(f"""(async () => {{
                const {{ readEvents }} = await import('/sse.js'); const seen = [];
                const bytes = new TextEncoder().encode({json.dumps(stream)});
                const parts = new ReadableStream({{ start(to) {{
                    for (let i = 0; i < bytes.length; i += {step}) to.enqueue(bytes.slice(i, i + {step}));
                    to.close();
                }} }});
                await readEvents(parts, ({{ event, data }}) => seen.push([event, data]));
                return seen;
            }})()""")
            check(got == [["a", '{"x":1}'], ["message", "two\nlines ü"]], f"in pieces of {step}: {got}")
        page.close()


@test
def how_files_are_served(browser):
    del browser
    with serving("--match", "^no such process at all$") as url:
        for path in ("", "style.css", "parts.css", "main.js", "chart.min.js", "icon.svg", "licences.txt"):
            status, plain, body = get(url + path)
            check(status == 200 and body, f"/{path}: {status}")
            policy = plain["Content-Security-Policy"]
            check("default-src 'none'" in policy and "unsafe" not in policy, f"/{path}: policy: {policy}")
            check(plain["X-Content-Type-Options"] == "nosniff", f"/{path}: no nosniff")
            again = get(url + path, **{"If-None-Match": plain["ETag"]})
            check(again[0] == 304 and not again[2], f"/{path}: not known by its ETag: {again[0]}")
            _, packed, data = get(url + path, **{"Accept-Encoding": "gzip"})
            check(packed["Content-Encoding"] == "gzip" and data[:2] == b"\x1f\x8b" and len(data) < len(body), f"/{path}: is not packed")
        check(get(url + "no-such-file.js")[0] == 404, "a file that is not there")


def main():
    wanted = [t for t in TESTS if not sys.argv[1:] or t.__name__ in sys.argv[1:]]
    print(f"1..{len(wanted)}", flush=True)
    failed = 0
    with Browser() as browser:
        for number, function in enumerate(wanted, 1):
            try:
                function(browser)
                print(f"ok {number} - {function.__name__}", flush=True)
            except Exception:  # noqa: BLE001: whatever it was, the next one runs
                failed += 1
                traceback.print_exc(file=sys.stdout)
                print(f"not ok {number} - {function.__name__}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
