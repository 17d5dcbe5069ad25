"""The page in a real browser: its script works, text stays text, and nothing is asked of a network."""

from __future__ import annotations

import base64
import hashlib
import html
import http.server
import json
import re
import shutil
import subprocess
import threading

import pytest

from flexray.report.page import write_page
from flexray.sink import OutputFolder
from tests.unit.report.page_runs import hostile_text
from tests.unit.sink.builders import ERROR, commit, planned, row, start, table

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"
)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=2000",
]
DARK, LIGHT = ("--blink-settings=preferredColorScheme=0", "--blink-settings=preferredColorScheme=1")

# What a reader would do, in the page itself (in a block: the page's script has names of its own). What is
# to be seen then is noted.
READER = """{
const seen = {};
const part = (name) => document.getElementById(name);
const rows = (name) => [...part(name).querySelectorAll("table:last-of-type tbody tr")];
const status = (name) => part(name).querySelector("output").textContent;
const first = (name) => rows(name)[0].cells[0].textContent;
const press = (name, text) => [...part(name).querySelectorAll("button")]
  .find((button) => button.textContent.includes(text)).click();
const search = (name, text) => {
  const box = part(name).querySelector("input");
  box.value = text;
  box.dispatchEvent(new Event("input"));
};
const note = (name) => ({ shown: rows(name).length, status: status(name), first: first(name) });
const colour = () => getComputedStyle(document.body).backgroundColor;

seen.opened = note("shards");
press("shards", "Next");
seen.next = note("shards");
press("shards", "seconds");
seen.slowest = note("shards");
press("shards", "seconds");
seen.fastest = note("shards");
press("shards", "shard");
seen.by_name = note("shards");
search("shards", " QA-TEST-00012 ");
seen.found = note("shards");
search("errors", "qa-test-000032");
seen.errors = { ...note("errors"), all: rows("errors").every((row) => row.textContent.includes("0000321")) };
search("errors", "<b>no such</b>");
seen.nothing = { shown: rows("errors").length, status: status("errors") };
const toggle = document.querySelector(".toggle");
seen.colours = [colour(), toggle.textContent];
toggle.click();
seen.colours.push(colour(), toggle.textContent);
toggle.click();
seen.colours.push(colour());
seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.documentElement.setAttribute("data-seen", JSON.stringify(seen));
}"""


def dump(page, tmp_path, *flags):
    """The document after its scripts have run."""
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        *flags,
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def with_reader(page, tmp_path):
    """A copy of a page with a reader, whom its policy lets in."""
    digest = base64.b64encode(hashlib.sha256(READER.encode()).digest()).decode()
    text = page.read_text(encoding="utf-8")
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1).replace(
        "</body>", f"<script>{READER}</script></body>"
    )
    copy = tmp_path / "copy.html"
    copy.write_text(text, encoding="utf-8")
    return copy


def seen_by_reader(page, tmp_path, *flags):
    document = dump(with_reader(page, tmp_path), tmp_path, *flags)
    return json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', document)[1]))


@pytest.fixture(scope="module")
def seen(many_page, tmp_path_factory):
    """What a reader of 1,000 shards sees in the dark."""
    return seen_by_reader(many_page, tmp_path_factory.mktemp("dark"), DARK)


def test_a_table_shows_one_page_and_turns(seen):
    assert seen["opened"]["shown"] == seen["next"]["shown"] == 15
    assert seen["opened"]["status"] == "1–15 of 1,000"
    assert seen["next"]["status"] == "16–30 of 1,000"
    assert seen["next"]["first"] != seen["opened"]["first"]


def test_a_click_on_a_head_sorts_and_another_one_turns_it_round(seen):
    assert seen["slowest"]["first"] == seen["opened"]["first"]
    assert seen["slowest"]["status"] == "1–15 of 1,000"
    assert seen["fastest"]["first"] not in (seen["slowest"]["first"], seen["next"]["first"])
    assert seen["by_name"]["first"] == "qa-test-000000"


def test_a_search_keeps_the_rows_that_hold_the_text(seen):
    assert seen["found"] == {"shown": 10, "status": "10 found, of 1,000", "first": "qa-test-000120"}
    assert seen["errors"]["all"]
    assert seen["errors"]["status"] == "1 found, of 35"
    assert seen["nothing"] == {"shown": 0, "status": "0 found, of 35"}


def test_colours_follow_the_system_and_the_toggle(seen, many_page, tmp_path):
    dark, to_light, light, to_dark, dark_again = seen["colours"]
    assert dark == dark_again != light
    assert (to_light, to_dark) == ("Light", "Dark")
    by_day = seen_by_reader(many_page, tmp_path, LIGHT, "--window-size=500,900")
    assert by_day["colours"] == [light, "Dark", dark, "Light", light]
    assert by_day["overflow"] <= 0  # on a small screen tables scroll, and the page does not


@pytest.fixture
def server():
    """A server of this machine, and what was asked of it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def title(document):
    return html.unescape(re.search(r"<title>(.*?)</title>", document, re.DOTALL)[1])


def test_hostile_text_runs_nothing_and_asks_for_nothing(server, tmp_path):
    url, asked = server
    hostile = hostile_text(url)
    folder = OutputFolder(str(tmp_path / "out"))
    folder.prepare()
    config = {"data": {"name": hostile}}
    run = start(folder, ["1", "2"], methods=(hostile,), config=config, provenance={"x": hostile})
    (spec,) = planned(folder, run)
    rows = [
        row("1", spec.shard_id, method=hostile, **(ERROR | {"error": hostile, "source_file": hostile})),
        row("2", spec.shard_id, method=hostile, backend_used="sdpa", fallback_reason=hostile),
    ]
    commit(folder, run, spec, table=table(spec, rows=rows))
    page = tmp_path / "page.html"
    write_page(folder.url, page)
    document = dump(page, tmp_path)
    assert title(document) == f"{folder} – flexray"
    assert "Next ›" in document, "the page's own script has not run"
    assert asked == []

    bait = tmp_path / "bait.html"
    bait.write_text(f'<!doctype html><title>bait</title><p title="{hostile}', encoding="utf-8")
    assert title(dump(bait, tmp_path)) == "owned"  # the same text, if it were not escaped
    assert {"/img", "/script", "/link", "/frame"} <= set(asked)
