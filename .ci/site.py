"""Look at the built site: links, words, formulas, pictures, and, with a browser, its pages.

Run ``python .ci/site.py doc/_build/html``. The browser is Chromium or Chrome, without a window;
where there is none, the script says so and checks the rest. ``--no-gallery`` is for a site whose
examples were not run, ``--screenshots FOLDER`` keeps pictures of the pages. It prints all that is
wrong and exits with 1 if there is anything.
"""

import argparse
import base64
import functools
import hashlib
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, SoupStrainer
from sphinx.search.en import SearchEnglish

# What people search for, and the page that they want.
WORDS = {
    "outlier": "guide/outliers",
    "anomaly": "guide/outliers",
    "imputation": "guide/imputation",
    "embedding": "guide/table_features",
    "tabular": "guide/tables",
    "semi-supervised": "guide/few_labels",
    "skrub": "guide/tables",
    "skops": "guide/saving",
    "ONNX": "guide/saving",
    "synthetic data": "guide/synthetic_rows",
}
SEARCHED = ["outlier", "imputation", "tabular", "ONNX", "synthetic data", "AutoEncoder"]
WIDTHS = (400, 1300)
# By how much the page, or its article, which has a bar of its own, is wider than its place.
OVERFLOWING = """
Math.max(...[document.documentElement, ...document.querySelectorAll(".bd-article-container")]
    .map((place) => place.scrollWidth - place.clientWidth))
"""
# Roles, directives, commands of LaTeX and templates that were not rendered.
STRAY = re.compile(r"\{\{|_\{|\^\{|\\[a-zA-Z]{2,}|:[a-z]+:`|``|\\_")


def pages(folder):
    """The HTML of each page of the site, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*.html"))
        if path.relative_to(folder).parts[0] != "_static"
    }


def broken_links(folder, site):
    """Links to files and to places in pages that are not there."""
    places = {
        (folder / page).resolve(): {"", "top", *re.findall(r'\bid="([^"]*)"', text)}
        for page, text in site.items()
    }
    link = re.compile(r'<(?:a|img|link|script)\b[^>]*?\b(?:href|src)="([^"]*)"')
    for page, text in site.items():
        for target in sorted(set(link.findall(text))):
            url = urlsplit(html.unescape(target))
            if url.scheme or url.netloc or not (url.path or url.fragment):
                continue
            here = folder / page
            file = (here.parent / unquote(url.path) if url.path else here).resolve()
            if not file.exists():
                yield f"{page}: no file {url.path}"
            elif unquote(url.fragment) not in places.get(file, {unquote(url.fragment)}):
                yield f"{page}: no place #{url.fragment} in {file.name}"


def stray_markup(site):
    """Text that shows its markup, outside of code."""
    for page, text in site.items():
        if page.startswith(("_modules/", "search", "genindex")):
            continue
        main = BeautifulSoup(text, "html.parser", parse_only=SoupStrainer("main"))
        for tag in main.find_all(["pre", "code", "script", "style", "annotation"]):
            tag.decompose()
        formulas = [formula.extract() for formula in main.find_all("math")]
        if any(formula.select("munderover > mi:first-child") for formula in formulas):
            yield f"{page}: a formula shows an index under its letter"
        texts = [("formula", formula.get_text()) for formula in formulas]
        for kind, shown in [*texts, ("text", main.get_text(" "))]:
            stray = re.search(r"[_^\\]", shown) if kind == "formula" else STRAY.search(shown)
            if stray:
                around = shown[max(0, stray.start() - 30) : stray.end() + 30]
                yield f"{page}: {kind} shows {' '.join(around.split())!r}"


def words_not_found(folder):
    """Words that the search does not find on the page where they belong."""
    text = (folder / "searchindex.js").read_text()
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    language = SearchEnglish({})
    for words, page in WORDS.items():
        number = index["docnames"].index(page)
        for word in re.findall(r"\w+", words.lower()):
            stem = language.stem(word)
            found = []
            for terms in (index["terms"], index["titleterms"]):
                places = terms.get(stem, [])
                found += places if isinstance(places, list) else [places]
            if number not in found:
                yield f"{word!r} is not found on {page}"


def shared_thumbnails(folder):
    """Pictures of the gallery that stand for several examples."""
    by_content = defaultdict(list)
    for path in sorted((folder / "_images").glob("sphx_glr_*_thumb.png")):
        by_content[hashlib.sha256(path.read_bytes()).hexdigest()].append(path.name)
    for names in by_content.values():
        if len(names) > 1:
            yield f"one thumbnail for {', '.join(names)}"
    if not by_content:
        yield "no thumbnails"


class Browser:
    """Chromium without a window, told what to do by its DevTools protocol over pipes."""

    def __init__(self, command):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read_there, self.write = os.pipe()
        self.read, write_there = os.pipe()

        def connect():
            # The protocol is spoken over the descriptors 3 and 4.
            for here, there in ((os.dup(read_there), 3), (os.dup(write_there), 4)):
                os.dup2(here, there)

        self.process = subprocess.Popen(
            [
                command,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
                f"--user-data-dir={self.folder.name}",
            ],
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """The result of a method; events that come before it are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        while b"\0" not in self.buffer:
            part = os.read(self.read, 1 << 20)
            if not part:
                raise RuntimeError("The browser has ended.")
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, url, width):
        """Load a page in a window of some width; what its console calls an error."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def errors(self):
        """What the console has called an error since the page was opened."""
        for event in self.events:
            parameters = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                yield parameters["exceptionDetails"]["text"]
            entry = parameters.get("entry", {"level": ""})
            # Browsers look for an icon that no page names.
            if entry["level"] == "error" and not entry.get("url", "").endswith("/favicon.ico"):
                yield f"{entry['text']} {entry.get('url', '')}"
            if event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] == "error":
                yield str(parameters["args"])

    def value(self, expression):
        """What a line of JavaScript says."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"][
            "value"
        ]

    def wait_for(self, expression, seconds=20):
        """Whether a line of JavaScript becomes true."""
        end = time.monotonic() + seconds
        while not (true := self.value(expression)) and time.monotonic() < end:
            time.sleep(0.1)
        return true

    def picture(self, path):
        """Keep what the window shows."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        """End the process that was started."""
        self.process.terminate()
        self.process.wait(20)
        self.folder.cleanup()


def looked_at(folder, site, command, screenshots):
    """What is wrong with the site in a browser."""
    handler = functools.partial(QuietHandler, directory=folder)
    server = QuietServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    names = [
        "index.html",
        "getting_started.html",
        "api.html",
        "api/generated/skae.AutoEncoder.html",
    ]
    names += ["auto_examples/index.html", "auto_examples/plot_odd_rows.html"]
    names += [name for name in site if name.startswith("guide/")]
    browser = Browser(command)
    try:
        for name in names:
            for width in WIDTHS:
                browser.open(f"{address}/{name}", width)
                if found := browser.value(OVERFLOWING):
                    yield f"{name}: {found} pixels too wide for a window of {width}"
                yield from (f"{name}: {error}" for error in browser.errors())
                if screenshots:
                    browser.picture(screenshots / f"{name.replace('/', '_')[:-5]}_{width}.png")
        for word in SEARCHED:
            browser.open(f"{address}/search.html?q={word.replace(' ', '+')}", WIDTHS[-1])
            if not browser.wait_for("document.querySelectorAll('#search-results li a').length"):
                yield f"the search for {word!r} finds nothing"
            yield from (f"search for {word!r}: {error}" for error in browser.errors())
            if screenshots:
                browser.picture(screenshots / f"search_{word.replace(' ', '_')}.png")
    finally:
        browser.close()
        server.shutdown()


class QuietServer(http.server.ThreadingHTTPServer):
    """Does not mind that a browser leaves a page before it is there."""

    def handle_error(self, request, client_address):
        """Nothing."""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *args):
        """Nothing."""


def main(folder, gallery=True, screenshots=None):
    """All that is wrong, printed; 1 if there is anything."""
    site = pages(folder)
    faults = [*broken_links(folder, site), *stray_markup(site), *words_not_found(folder)]
    if not (folder / "llms.txt").exists():
        faults.append("no llms.txt")
    if gallery:
        faults += shared_thumbnails(folder)
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    command = next(filter(None, map(shutil.which, names)), None)
    if command:
        if screenshots:
            screenshots.mkdir(parents=True, exist_ok=True)
        faults += looked_at(folder, site, command, screenshots)
    else:
        print("No browser is installed: pages were not looked at in one.")
    print(*faults, f"{len(site)} pages, {len(faults)} faults", sep="\n")
    return bool(faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="of the built site")
    parser.add_argument("--no-gallery", dest="gallery", action="store_false")
    parser.add_argument("--screenshots", type=Path, help="folder for pictures of the pages")
    sys.exit(main(**vars(parser.parse_args())))
