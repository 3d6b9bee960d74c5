# SPDX-License-Identifier: GPL-2.0
"""A headless Chromium, driven over a pair of pipes with its DevTools protocol: no port, no driver, no package."""
import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time

# Nothing of its own may go out: what the page asks for is what the test sees.
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-extensions --disable-default-apps --disable-breakpad
    --disable-crash-reporter --disable-dev-shm-usage --disable-domain-reliability --metrics-recording-only --mute-audio
    --hide-scrollbars --disable-background-timer-throttling --disable-renderer-backgrounding
    --disable-backgrounding-occluded-windows --password-store=basic --remote-debugging-pipe""".split()
SLOW = int(os.environ.get("ICP_WEB_SECONDS", "120"))  # seconds after which something is taken to hang, on a busy machine


class Failed(Exception):
    """What the page or the browser did wrong."""


class Browser:
    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="icp-chromium-")
        to_child, self.to = os.pipe()
        self.back, from_child = os.pipe()
        name = next(filter(shutil.which, ("chromium", "chromium-headless-shell")), "chromium")
        # It wants descriptors 3 and 4 for the pipes.
        self.log = open(os.path.join(self.home, "log"), "wb")
        command = f'exec "$0" "$@" 3<&{to_child} 4>&{from_child}'
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", command, name, *FLAGS, f"--user-data-dir={self.home}/profile", "about:blank"],
            pass_fds=(to_child, from_child), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            env=dict(os.environ, HOME=self.home), start_new_session=True)
        os.close(to_child)
        os.close(from_child)
        self.number, self.rest, self.pages = 0, b"", {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("Browser.close")
            self.process.wait(20)
        except (Failed, OSError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.to)
        os.close(self.back)
        self.log.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def read(self, seconds):
        """Take what comes within @seconds, and hand events to their pages; return the answers."""
        if not select.select([self.back], [], [], seconds)[0]:
            return []
        data = os.read(self.back, 1 << 20)
        if not data:
            with open(self.log.name, "rb") as log:
                raise Failed("the browser has ended: " + log.read()[-2000:].decode(errors="replace"))
        *messages, self.rest = (self.rest + data).split(b"\0")
        answers = []
        for message in map(json.loads, messages):
            if "id" in message:
                answers.append(message)
            elif page := self.pages.get(message.get("sessionId")):
                page.event(message["method"], message["params"])
        return answers

    def call(self, method, session=None, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        end = time.monotonic() + SLOW
        while time.monotonic() < end:
            for answer in self.read(1):
                if answer["id"] == self.number:
                    if "error" in answer:
                        raise Failed(f"{method}: {answer['error']['message']}")
                    return answer["result"]
        raise Failed(f"{method}: no answer")

    def page(self, url, width=1280, height=900, features=()):
        return Page(self, url, width, height, features)


class Page:
    """A tab. @features: (name, value) of media queries, as ("prefers-color-scheme", "dark")."""

    def __init__(self, browser, url, width, height, features):
        self.browser = browser
        self.problems, self.requests = [], []
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.target = target
        browser.pages[self.session] = self
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.media(features)
        self.resize(width, height)
        if error := self.call("Page.navigate", url=url).get("errorText"):
            raise Failed(f"{url}: {error}")
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'", "the page")

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)
        del self.browser.pages[self.session]

    def media(self, features):
        self.call("Emulation.setEmulatedMedia", features=[{"name": n, "value": v} for n, v in features])

    def resize(self, width, height, keep=False):
        if not keep:
            self.size = width, height
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def event(self, method, params):
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            detail = params["exceptionDetails"]
            self.problems.append(detail.get("exception", {}).get("description") or detail["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def js(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if detail := result.get("exceptionDetails"):
            raise Failed(f"{expression}: {detail.get('exception', {}).get('description') or detail['text']}")
        return result["result"].get("value")

    def until(self, expression, what=None):
        """Wait until the expression is true, and return its value."""
        end = time.monotonic() + SLOW
        while time.monotonic() < end:
            if value := self.js(expression):
                return value
            self.browser.read(0.1)
        raise Failed(f"never came: {what or expression}; the page complains: {self.problems}, "
                     f"and shows: {self.js('document.body.innerText')[:800]}")

    def key(self, name, text=None):
        for kind in ("keyDown", "keyUp"):
            params = {"type": kind, "key": name, "code": name,
                      "windowsVirtualKeyCode": {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38,
                                                "ArrowRight": 39, "ArrowDown": 40}.get(name, 0)}
            if name == "Enter" and kind == "keyDown":
                params["text"] = "\r"
            self.call("Input.dispatchKeyEvent", **params)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def click(self, selector):
        """With the mouse, in the middle of the element; it must be what is on top there."""
        x, y = self.js(f"""(() => {{
            const node = document.querySelector({json.dumps(selector)});
            node.scrollIntoView({{block: 'center'}});
            const box = node.getBoundingClientRect();
            const at = [box.left + box.width / 2, box.top + box.height / 2];
            const top = document.elementFromPoint(...at);
            if (!node.contains(top)) throw new Error('{selector} is covered by ' + top?.outerHTML.slice(0, 200));
            return at;
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def move(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path, whole=True):
        """Of the whole page, which is drawn that high first; or of what is in sight."""
        if whole:
            self.resize(self.size[0], self.js("document.documentElement.scrollHeight"), keep=True)
        self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))))")
        data = self.call("Page.captureScreenshot", format="png")["data"]
        self.resize(*self.size)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
