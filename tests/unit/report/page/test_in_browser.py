"""The page in a real browser: search and filters of 50,000 rows; small screens will do; text stays text."""

from __future__ import annotations

import re
import shutil

import pytest

from flexray.evaluation.answer_metrics import normalize_answer
from flexray.report.page import write_page
from flexray.sink import OutputFolder
from tests.unit.report.page_runs import HOSTILE, hostile_run
from tests.unit.sink.builders import ERROR, commit, planned, row, start, table

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here (Debian: apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
FLAGS += ("--disable-background-networking", "--disable-component-update")
METHODS = ("attention", "origin")
QUESTIONS = 25_000
SHOWN = 20


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture
def visit(browser):
    """Opens a file; what it asks of a network, and errors of its script, are in `.trouble`."""
    opened = []

    def visit(path, *, width=1280, dark=False):
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        page.trouble = []
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or page.trouble.append(r.url))
        page.on("pageerror", lambda e: page.trouble.append(str(e)))
        page.on("console", lambda m: m.type == "error" and page.trouble.append(m.text))
        page.on("dialog", lambda d: (page.trouble.append(d.message), d.dismiss()))
        page.goto(path.as_uri())
        opened.append(page)
        return page

    yield visit
    for page in opened:
        assert page.trouble == []
        page.close()


def made(number, method):
    """What a method makes of a question."""
    changes = {"method": method, "question": f"Which city has number {number}?"}
    changes["paraphrases"] = [f"Number {number} is which city?", f"City {number}?"]
    if number % 250 == 2:
        return changes | ERROR | {"error": f"d.jsonl, row {number}, field 'q': too long"}
    if number % 3 == 0 and method == "origin":
        changes |= {"prediction": f"Rome {number % 7}", "correct": False}
    elif number % 5 == 0:
        changes |= {"prediction": "the Berlin." if number % 2 else "Paris", "correct": bool(number % 2)}
    if number % 100 == 1 and method == "attention":
        changes |= {"backend_used": "sdpa", "fallback_reason": "flex: out of memory"}
    return changes


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The page of 50,000 rows, and these rows."""
    place = tmp_path_factory.mktemp("many")
    folder = OutputFolder(str(place / "out"))
    folder.prepare()
    ids = [f"qa/test/{number}" for number in range(QUESTIONS)]
    run = start(folder, ids, METHODS, shard_rows=QUESTIONS)
    (shard,) = planned(folder, run)
    rows = [
        row(i, shard.shard_id, **made(number, method)) for method in METHODS for number, i in enumerate(ids)
    ]
    commit(folder, run, shard, table=table(shard, rows=rows))
    write_page(folder.url, place / "page.html")
    return place / "page.html", list(zip(rows[:QUESTIONS], rows[QUESTIONS:], strict=True))


def differ(one, two):
    said = {normalize_answer(r["prediction"]) for r in (one, two) if not r["error"]}
    return len(said) > 1


KEPT = {
    "wrong": lambda *rows: any(r["correct"] is False for r in rows),
    "differ": differ,
    "fallback": lambda *rows: any(r["fallback_reason"] for r in rows),
    "error": lambda *rows: any(r["error"] for r in rows),
}


def found(page):
    """How many questions the table has after search and filters."""
    assert page.locator(".answers tbody tr").count() <= SHOWN
    return int(re.search(r"([\d,]+) found", page.locator("#status").text_content())[1].replace(",", ""))


def test_of_all_rows_one_page_is_in_the_document_and_turns(visit, many):
    page = visit(many[0])
    first = page.locator(".answers tbody tr").first
    assert found(page) == QUESTIONS
    assert page.locator("tr").count() < 100
    assert "qa/test/0" in first.text_content()
    page.click("#next")
    assert page.locator("#status").text_content() == "21–40 of 25,000 found, of 25,000 questions"
    assert f"qa/test/{SHOWN}" in first.text_content()
    page.click("#back")
    assert page.locator("#back").is_disabled()
    first.locator("summary").click()
    assert first.locator("ol").inner_text().splitlines() == ["Number 0 is which city?", "City 0?"]


def test_a_filter_keeps_exactly_its_questions_and_says_how_many(visit, many):
    page = visit(many[0])
    for names in (["wrong"], ["differ"], ["fallback"], ["error"], ["wrong", "fallback"]):
        for name in names:
            expected = sum(KEPT[name](*rows) for rows in many[1])
            assert page.locator(f"label:has([value={name}]) span").text_content() == f"{expected:,}"
            page.click(f"label:has([value={name}])")
        assert found(page) == sum(all(KEPT[name](*rows) for name in names) for rows in many[1])
        page.select_option("#method", label="origin")
        assert found(page) == sum(
            all(KEPT[name](*(rows if name == "differ" else rows[1:])) for name in names) for rows in many[1]
        )
        page.select_option("#method", label="any method")
        for name in names:
            page.click(f"label:has([value={name}])")
    assert found(page) == QUESTIONS


def test_a_search_finds_exactly_the_rows_that_hold_the_text(visit, many):
    page = visit(many[0])
    for text in ("NUMBER 1234", "city 24999?", "rome 3", "row 252, field", "out of memory", "no such"):
        page.fill("#search", text)
        held = [
            any(text.lower() in str(value).lower() for r in rows for value in r.values()) for rows in many[1]
        ]
        assert found(page) == sum(held), text


def test_a_cell_of_the_matrix_shows_the_questions_on_which_two_methods_differ(visit, many):
    page = visit(many[0])
    expected = [rows for rows in many[1] if differ(*rows)]
    cell = page.locator("[data-pair='0 1']")
    assert cell.get_attribute("title").startswith(f"{len(expected):,} of 24,900 differ; ")
    right = sum(rows[0]["correct"] for rows in expected) / len(expected)
    assert cell.locator("small").text_content() == f"{right:.1%} right"
    cell.click()
    assert found(page) == len(expected)
    assert page.locator("#pair").text_content() == "attention ≠ origin ✕"
    page.click("#pair")
    assert found(page) == QUESTIONS


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page with hostile texts in it."""
    place = tmp_path_factory.mktemp("hostile")
    write_page(hostile_run(place / "out").url, place / "run.html")
    return place / "run.html"


def test_hostile_text_does_nothing_and_the_page_is_no_wider_than_a_small_screen(visit, many, hostile):
    for path in (many[0], hostile):
        page = visit(path, width=400)
        page.wait_for_function("document.querySelector('.answers tbody tr')")
        widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        wide, screen = page.evaluate(widths)
        assert wide <= screen == 400, path
        assert page.title() != "owned"
        assert page.locator("iframe, link, img:not([src^='data:image/svg'])").count() == 0
        assert page.locator("script").count() == 2


def test_the_same_text_would_do_harm_if_it_were_not_escaped(visit, tmp_path):
    (tmp_path / "bait.html").write_text(f'<!doctype html><title>bait</title><p title="{HOSTILE}')
    page = visit(tmp_path / "bait.html")
    assert page.title() == "owned"
    assert any(url.endswith("/img") for url in page.trouble)
    page.trouble.clear()


def test_texts_are_shown_as_they_are_with_invisible_characters_spelled_out(visit, hostile):
    page = visit(hostile)
    question = page.locator(".answers .question").first.text_content()
    assert question == HOSTILE.replace("\x00", "\\x00").replace("\x1b", "\\x1b").replace(
        "\u202e", "\\u202e"
    ).replace("\u2028", "\\u2028")
    page.fill("#search", "<img src=")
    assert found(page) == 3


def test_colours_follow_the_system_and_plots_are_drawn(visit, many):
    seen = {}
    for dark in (False, True):
        page = visit(many[0], dark=dark)
        plots = page.locator("figure img")
        assert plots.evaluate_all("all => all.every((img) => img.complete && img.naturalWidth > 300)")
        assert plots.count() >= 3
        seen[dark] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert seen[False] != seen[True]
