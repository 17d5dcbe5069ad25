"""The page says what is in the folder, finished, in progress or damaged, and all of it as text."""

from __future__ import annotations

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from flexray.cli import app
from flexray.report.notes import RunNotes
from flexray.report.page import default_page, tables, write_page
from flexray.report.page.page import gather
from flexray.report.run_folder import RunFolder
from flexray.sink import DamageError, OutputFolder, committed_shards, recommit_shard
from flexray.sink.lock.file import Owner
from flexray.sink.lock.hold import hold
from flexray.sink.records import manifest_name
from tests.unit.report.page_reader import data_of, figures, read_page
from tests.unit.report.page_runs import MANY_METHODS, hostile_run, many_shards
from tests.unit.sink.builders import (
    ERROR,
    ROWS,
    A,
    B,
    C,
    Shard,
    commit,
    finished,
    row,
    start,
    table,
)

ATTRIBUTES_OF_CODE = ("on", "src", "style", "action", "formaction", "data", "xlink:href")


def page_of(url, tmp_path, **options):
    html = tmp_path / "page.html"
    write_page(str(url), html, **options)
    return read_page(html)


def commit_rows(folder, run, spec, **changes):
    """Commit a shard whose rows all have these values."""
    rows = [row(row_id, spec.shard_id, method=m, **changes) for m in spec.methods for row_id in spec.row_ids]
    return commit(folder, run, spec, table=table(spec, rows=rows))


def test_a_finished_run_is_added_up(folder, tmp_path):
    run = start(folder)
    commit(folder, run, A, seconds=2.0)
    commit_rows(folder, run, B, correct=False)
    commit_rows(folder, run, C, **ERROR)
    page = page_of(folder, tmp_path)
    found = figures(page)
    assert page.all("strong")[0].words == "complete"
    assert "3 of 3 planned shards are committed" in page.words
    assert found["rows"] == "12 of 12 planned"
    assert found["answered"] == "8 (66.7%)"
    assert found["errors"] == "4 (33.3%)"
    assert found["fallbacks"] == "0 (0.0%)"
    assert found["work time of all shards together"] == "5.0 s"
    (method,) = page.by_id("accuracy").rows()
    assert method == ["m", "12", "4", "8", "4", "50.0%", "21.5% to 78.5%"]
    (first, *_) = page.by_id("shards").rows()
    assert (first[0], first[1], first[4]) == (A.shard_id, "2.0", "4")


def test_the_model_and_each_of_its_adapters_are_named(folder, tmp_path):
    finished(folder, config={"model": {"path": "models/base", "lora": ["adapters/first", "adapters/second"]}})
    words = page_of(folder, tmp_path).words
    assert "Model models/base. LoRA adapter adapters/first. LoRA adapter adapters/second. Started" in words


def test_methods_stand_in_the_order_of_the_run(folder, tmp_path):
    finished(folder, methods=("zeta", "alpha"))
    assert [method[0] for method in page_of(folder, tmp_path).by_id("accuracy").rows()] == ["zeta", "alpha"]


def test_a_table_of_which_the_last_recipe_names_a_part_is_complete_with_that_part(folder, tmp_path):
    finished(folder, methods=("m", "n"))
    start(folder, ROWS[:8])
    page = page_of(folder, tmp_path)
    assert page.all("strong")[0].words == "complete"
    assert figures(page)["rows"] == "8 of 8 planned"
    assert [method[1] for method in page.by_id("accuracy").rows()] == ["8"]
    everything = figures(page_of(folder, tmp_path, everything=True))
    assert everything["rows"] == "24 of 24 planned"


def test_what_is_not_scored_has_no_accuracy(folder, tmp_path):
    run = start(folder, ROWS[:4])
    commit_rows(folder, run, A, answers=None, correct=None)
    (method,) = page_of(folder, tmp_path).by_id("accuracy").rows()
    assert method == ["m", "4", "0"]


def test_a_run_with_nothing_committed_is_a_page_too(folder, tmp_path):
    start(folder)
    page = page_of(folder, tmp_path)
    assert figures(page)["rows"] == "0 of 12 planned"
    assert "0 of 3 planned shards are committed" in page.text
    assert page.by_id("backends").rows() == page.by_id("shards").rows() == []
    assert data_of(page) == {"methods": ["m"], "questions": []}


def test_a_run_in_progress_is_told_from_one_that_was_left(folder, tmp_path):
    run = start(folder)
    commit(folder, run, A)
    with hold(folder):
        page = page_of(folder, tmp_path)
    assert page.all("strong")[0].words == "in progress"
    assert "1 of 3 planned shards are committed. A run holds the folder: host" in page.words
    dead = dataclasses.replace(Owner.me(), pid=2**22 + 1)  # no such process can be
    folder.write_bytes("_lock-1.json", dead.to_bytes())
    page = page_of(folder, tmp_path)
    assert page.all("strong")[0].words == "not complete"
    assert "No run is at work there; flexray run goes on with it." in page.words


@pytest.mark.parametrize("what", ["data", "manifest"])
def test_damage_is_named_and_the_rest_is_counted(folder, tmp_path, what):
    run = finished(folder)
    name = committed_shards(folder, run)[B.shard_id].file if what == "data" else manifest_name(B.shard_id)
    folder.write_bytes(name, folder.read_bytes(name)[:-3])
    page = page_of(folder, tmp_path)
    (damage,) = (e for e in page.all("section") if e.attributes.get("class") == "damage")
    assert folder.where(name) in damage.text
    assert "flexray repair" in damage.text
    assert page.all("strong")[0].words == "not complete"
    assert figures(page)["rows"] == "8 of 12 planned"
    assert page.by_id("accuracy").rows()[0][1] == "8"


def test_a_damaged_run_record_is_an_error_that_says_what_to_do(folder, tmp_path):
    finished(folder)
    folder.write_bytes("_run.json", b"{")
    with pytest.raises(DamageError, match=r"Run the same recipe again.*`flexray verify`"):
        page_of(folder, tmp_path)


def test_backends_fallbacks_and_errors_are_named_with_their_rows(folder, tmp_path):
    run = start(folder)
    commit(folder, run, A)
    commit_rows(folder, run, B, backend_used="sdpa", fallback_reason="flex: no compiler")
    commit_rows(folder, run, C, **ERROR)
    page = page_of(folder, tmp_path)
    assert page.by_id("backends").rows() == [
        ["flex", "4", "33.3%"],
        ["sdpa", "4", "33.3%"],
        ["none", "4", "33.3%"],
    ]
    part = page.by_id("errors")
    assert part.rows(0) == [["4", "d.jsonl, row 1: bad"]]
    assert part.rows(1) == [["4", "flex: no compiler"]]
    assert [title.words[:12] for title in part.all("h3")] == ["4 error rows", "4 rows that ", "Backends"]


def test_of_many_kinds_of_errors_the_frequent_ones_are_named(folder, tmp_path):
    kinds = [(f"kind {number}", 100 - number) for number in range(60)]
    table = tables.problems(kinds)
    assert len(table.rows) == 51
    assert table.rows[0] == ("100", "kind 0")
    assert table.rows[-1] == (f"{sum(rows for _, rows in kinds[50:])}", "of 10 other kinds")


def test_what_is_kept_of_rows_does_not_grow_with_their_number(folder):
    finished(folder)
    notes = RunNotes(RunFolder.open(folder.url))
    for _ in range(50):
        notes.add(table(Shard("a", ROWS[:10] * 5)))
    assert notes.prompt_tokens == {10: 2_500}
    assert notes.generated_tokens == {3: 2_500}


def test_the_engines_work_is_that_of_all_shards_and_of_retries(folder):
    stats = {"prefill_seconds": 1.0, "decode_seconds": 2.0, "generated_tokens": 30, "decode_steps": 10}
    run = start(folder, ROWS[:8])
    commit(folder, run, A, engine_stats=stats | {"mask_cache": {"hits": 90, "misses": 10}})
    commit(folder, run, B, engine_stats=stats | {"retries": [stats]})
    work = gather(str(folder)).totals.work
    assert work.engine["prefill_seconds"] == 3.0
    assert work.tokens_per_step == 3.0


def test_a_shard_that_was_retried_is_left_out_of_the_throughput(folder, tmp_path):
    run = start(folder)
    bad = commit_rows(folder, run, A, **ERROR)
    recommit_shard(folder, bad, table(A), engine_stats={}, seconds=500.0)
    commit(folder, run, B)
    page = page_of(folder, tmp_path)
    assert "without 1 shards whose error rows were retried" in page.text
    assert figures(page)["time in which shards were in work"] == "1.5 s"


def test_a_rebuilt_record_does_not_begin_after_its_shards(folder):
    finished(folder)
    run = gather(str(folder)).run.record
    late = run.model_copy(
        update={"rebuilt": "2999-01-01T00:00:00+00:00", "created": "2999-01-01T00:00:00+00:00"}
    )
    folder.write_bytes("_run.json", late.sealed().to_bytes())
    totals = gather(str(folder)).totals
    assert totals.wall_seconds == pytest.approx(totals.busy_seconds, abs=5)


def test_hostile_text_is_only_text(tmp_path):
    place = hostile_run(tmp_path / 'out"><b onclick=1>')
    page = page_of(place.url, tmp_path)
    for element in page.everything():
        for name, value in element.attributes.items():
            assert not name.startswith(ATTRIBUTES_OF_CODE) or (
                name.startswith("data-") or value.startswith("data:image/svg+xml;base64,")
            ), (element.name, name)
            assert name != "href" or value.startswith("#")
    assert {"iframe", "link", "b onclick"}.isdisjoint(element.name for element in page.everything())
    assert (len(page.all("script")), len(page.all("style"))) == (2, 1)
    assert page.text.count("document.title='owned'") >= 8
    for shown in (page.text, json.dumps(data_of(page), ensure_ascii=False)):
        assert not {"\x00", "\u202e", "\u2028"} & set(shown)


def test_credentials_do_not_reach_the_page(folder, tmp_path):
    secret = "s3://key:hush@bucket/d.jsonl?token=hush"
    run = start(folder, ROWS[:4], config={"data": {"files": secret}}, provenance={"image": secret})
    commit_rows(folder, run, A, **(ERROR | {"error": f"{secret}: bad", "source_file": secret}))
    page = page_of(folder, tmp_path)
    assert "hush" not in (tmp_path / "page.html").read_text()
    assert "hush" not in json.dumps(data_of(page))


def test_a_hundred_shards_are_a_page_of_reasonable_size(tmp_path):
    place = OutputFolder(str(tmp_path / "out"))
    place.prepare()
    many_shards(place, 100)
    page = page_of(place, tmp_path)
    assert (tmp_path / "page.html").stat().st_size < 300_000
    seconds = [float(cells[1]) for cells in page.by_id("shards").rows()]
    assert len(seconds) == 20
    assert seconds == sorted(seconds, reverse=True)
    assert [method[0] for method in page.by_id("accuracy").rows()] == list(MANY_METHODS)
    assert len(data_of(page)["questions"]) == 300


def report(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command_writes_beside_the_output_and_says_where(folder, tmp_path):
    finished(folder)
    done = report(tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"report: {tmp_path / 'out-report.html'}\n"
    assert (tmp_path / "out-report.html").read_text().startswith("<!doctype html>")


def test_the_command_writes_where_it_is_told(folder, tmp_path):
    finished(folder)
    done = report(tmp_path / "out", "--html", tmp_path / "new" / "page.html")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "new" / "page.html").is_file()
    assert not (tmp_path / "out-report.html").exists()


def test_the_page_of_a_url_goes_into_out_of_this_folder():
    assert str(default_page("memory://bucket/answers/webqa/")) == "out/webqa-report.html"


def test_a_folder_without_a_run_is_2(tmp_path):
    empty = tmp_path / "empty"
    done = report(empty)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {empty}: holds no run")
    assert not list(tmp_path.glob("*.html"))


def test_a_page_that_cannot_be_written_is_2(folder, tmp_path):
    finished(folder)
    done = report(tmp_path / "out", "--html", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {tmp_path}: cannot be written")
