"""A night's work: what is new or unfinished is done, once, and nothing else is touched."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
import yaml

from flexray.runs.nightly import Night, nightly
from flexray.sink import OutputFolder, hold
from tests.ray.jobs import assert_whole, make_tree, manifests, question, rows_of, write

pytestmark = pytest.mark.usefixtures("local_ray")

ROWS = 4  # of a file
SHARDS = 24  # a second's work or more, once the model is loaded


@dataclass(frozen=True)
class Place:
    """A folder with in/, recipes/ and, after the first night, answers/."""

    folder: Path
    model: Path

    def add(self, name: str, rows: int = ROWS, first: int = 0) -> None:
        """A file of questions."""
        (self.folder / "in").mkdir(exist_ok=True)
        write(self.folder / "in" / name, [question(i) for i in range(first, first + rows)])

    def write_recipe(self, **sections) -> None:
        """A recipe that answers all of in/. Two nights at once share the session's two CPUs."""
        tree = make_tree(self.answers, self.model, self.folder / "in" / "*.jsonl", **sections)
        tree["ray"]["num_cpus_per_actor"] = 0.5
        (self.folder / "recipes").mkdir(exist_ok=True)
        (self.folder / "recipes" / "night.yaml").write_text(yaml.safe_dump(tree))

    @property
    def answers(self) -> Path:
        return self.folder / "answers"

    def start(self, **options) -> tuple[Night, list[str], list[str]]:
        """A night in this process: what came of it, what it said, what it complained of."""
        said: list[str] = []
        failed: list[str] = []
        night = nightly([str(self.folder / "recipes")], log=said.append, complain=failed.append, **options)
        return night, [line.replace(f"{self.folder}/", "") for line in said], failed

    def written(self) -> dict[Path, int]:
        """Every file of the answers, and when it was written."""
        return {path: path.stat().st_mtime_ns for path in self.answers.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path, tiny_model):
    return Place(tmp_path, tiny_model)


@pytest.fixture(scope="module")
def first_night(local_ray, tiny_model, tmp_path_factory):
    """The place after its first night, and what came of it: a.jsonl and b.jsonl. Do not change it."""
    place = Place(tmp_path_factory.mktemp("night"), tiny_model)
    place.write_recipe()
    place.add("a.jsonl")
    place.add("b.jsonl", rows=2, first=10)
    with (place.folder / "in" / "b.jsonl").open("a") as stream:
        stream.write('{"id": "bad"}\n')
    return place, *place.start()


@pytest.fixture
def later(first_night, tmp_path):
    """A place of its own after that night, with its recipe. Its files are others, with the same rows."""
    before = first_night[0]
    for name in ("in", "answers"):
        shutil.copytree(before.folder / name, tmp_path / name)
    place = Place(tmp_path, before.model)
    place.write_recipe()
    return place


def test_the_first_night_does_everything(first_night):
    place, night, said, failed = first_night
    assert (night.exit_code, night.summary_line(), failed) == (0, "complete=0 answered=1 held=0 failed=0", [])
    assert said[0] == "recipes/night.yaml -> answers"
    assert said[-2] == "recipes/night.yaml: done and verified, 7 rows, 1 errors"
    assert_whole(place.answers, 7)


def test_a_night_without_news_reads_nothing_and_writes_nothing(later, monkeypatch):
    later.start()  # looks into the copied files, which are others
    before = later.written()
    monkeypatch.setattr("flexray.runs.job.stage", lambda *_: pytest.fail("nothing is to be read"))
    night, said, failed = later.start()
    assert (night.exit_code, night.summary_line(), failed) == (0, "complete=1 answered=0 held=0 failed=0", [])
    assert said[-2] == "recipes/night.yaml: complete, 7 rows, 1 errors"
    assert later.written() == before


def test_the_rows_of_a_new_file_are_done_alone_and_a_renamed_file_is_known(later):
    before = later.written()
    later.add("c.jsonl", first=20)
    (later.folder / "in" / "a.jsonl").rename(later.folder / "in" / "renamed.jsonl")
    night, said, failed = later.start()
    assert (night.exit_code, night.summary_line(), failed) == (0, "complete=0 answered=1 held=0 failed=0", [])
    assert said[-2] == f"recipes/night.yaml: done and verified, {7 + ROWS} rows, 1 errors"
    after = later.written()
    data = {path: time for path, time in before.items() if path.parent.name in ("data", "_manifests")}
    assert data.items() <= after.items()
    assert_whole(later.answers, 7 + ROWS)
    new = {path for path in after if path.parent.name == "data"} - before.keys()
    assert len(new) == 2  # shards of three rows
    assert {f"qa/test/q{i}" for i in range(20, 20 + ROWS)} <= set(rows_of(later.answers))


def test_a_larger_limit_is_a_night_of_the_rows_that_it_adds(place):
    place.write_recipe(data={"limit": 3})
    place.add("a.jsonl", rows=7)
    night, said, failed = place.start()
    assert (night.exit_code, said[-2], failed) == (
        0,
        "recipes/night.yaml: done and verified, 3 rows, 0 errors",
        [],
    )
    before = {path: time for path, time in place.written().items() if path.parent.name == "data"}
    night, said, failed = place.start(overrides=["data.limit=5"])
    assert (night.exit_code, said[-2], failed) == (
        0,
        "recipes/night.yaml: done and verified, 5 rows, 0 errors",
        [],
    )
    after = {path: time for path, time in place.written().items() if path.parent.name == "data"}
    assert before.items() <= after.items()
    ((new, _),) = after.items() - before.items()
    assert pq.read_table(new)["row_id"].to_pylist() == ["qa/test/q3", "qa/test/q4"]
    assert_whole(place.answers, 5)


def test_a_changed_row_stops_its_recipe_and_no_other(later):
    other = make_tree(later.folder / "other", later.model, later.folder / "in" / "b.jsonl")
    (later.folder / "recipes" / "other.yaml").write_text(yaml.safe_dump(other))
    later.add("a.jsonl", rows=ROWS - 1)
    with (later.folder / "in" / "a.jsonl").open("a") as stream:
        stream.write(json.dumps(question(ROWS - 1, question="What else?")) + "\n")
    later.add("c.jsonl", first=20)
    night, _, (failed,) = later.start()
    assert (night.exit_code, night.summary_line()) == (2, "complete=0 answered=1 held=0 failed=1")
    assert f"a.jsonl, row {ROWS} (id qa/test/q{ROWS - 1}), field 'question'" in failed
    assert "-> 'What else?'" in failed
    assert "qa/test/q20" not in rows_of(later.answers)
    night, _, failed = later.start(replace_changed=True)
    assert (night.exit_code, night.summary_line(), failed) == (0, "complete=1 answered=1 held=0 failed=0", [])
    rows = rows_of(later.answers)
    assert rows[f"qa/test/q{ROWS - 1}"]["question"] == "What else?"
    assert len(rows) == 7 + ROWS


def test_what_fails_or_is_held_by_another_stops_nothing_else(later):
    other = make_tree(later.folder / "other", later.model, later.folder / "in" / "b.jsonl")
    (later.folder / "recipes" / "other.yaml").write_text(yaml.safe_dump(other))
    (later.folder / "recipes" / "bad.yaml").write_text("{data: {names: no such key}}")
    with hold(OutputFolder(str(later.answers)), log=lambda line: None, beat_seconds=0.2):
        night, _, (bad, held) = later.start()
    assert (night.exit_code, night.summary_line()) == (2, "complete=0 answered=1 held=1 failed=1")
    assert bad.startswith(f"{later.folder}/recipes/bad.yaml: ")
    assert "data.names: " in bad
    recipe = f"{later.folder}/recipes/night.yaml"
    assert held.startswith(f"{recipe}: left alone: {later.answers}: another run is at work there: ")


def test_another_configuration_needs_another_output_folder(later):
    before = later.written()
    night, _, (failed,) = later.start(overrides=["prompt.instruction=Another."])
    assert (night.exit_code, night.outcomes["failed"]) == (2, 1)
    assert 'prompt.instruction: "Answer." -> "Another."' in failed
    assert later.written() == before


def test_nights_of_the_old_layout_are_not_begun_again(later):
    later.answers.rename(later.folder / "one night")
    later.answers.mkdir()
    shutil.copytree(later.folder / "one night", later.answers / ("0123456789abcdef"))
    before = later.written()
    night, _, (failed,) = later.start()
    assert (night.exit_code, night.outcomes["failed"]) == (2, 1)
    assert f"flexray adopt --config {later.folder}/recipes/night.yaml {later.answers}" in failed
    assert later.written() == before


def test_a_complete_recipe_above_its_limits_is_told_by_exit_code_1(later):
    night, _, (failed,) = later.start(overrides=["limits.max_error_share=0.1"])
    assert (night.exit_code, night.summary_line()) == (1, "complete=0 answered=0 held=0 failed=1")
    assert "1 of 7 rows are errors, more than limits.max_error_share (0.1) allows" in failed


def test_error_rows_are_tried_again_and_old_rows_read_back_only_if_asked(later):
    night, said, _ = later.start(retry=True)
    assert (night.exit_code, night.summary_line()) == (0, "complete=0 answered=1 held=0 failed=0")
    assert "  retried=1 answered=0 still_errors=1" in said
    later.add("c.jsonl", first=20)
    night, said, _ = later.start(retry=True)  # also where there was something else to do
    assert (night.exit_code, said[-2]) == (
        0,
        f"recipes/night.yaml: done and verified, {7 + ROWS} rows, 1 errors",
    )
    assert "  retried=1 answered=0 still_errors=1" in said
    file = next((later.answers / "data").iterdir())
    file.write_bytes(bytes(file.stat().st_size))  # of another size it would be seen at once
    assert later.start()[0].exit_code == 0
    night, _, (failed,) = later.start(verify_all=True)
    assert (night.exit_code, night.outcomes["failed"]) == (1, 1)
    assert " damaged=1 " in failed
    assert str(file) in failed


@pytest.mark.slow
def test_a_killed_night_is_finished_by_the_next(place):
    place.write_recipe(data={"shard_rows": 1}, generation={"max_new_tokens": 24, "stop_at_newline": False})
    place.add("a.jsonl", rows=SHARDS)
    command = [sys.executable, "-m", "flexray.cli", "nightly", str(place.folder / "recipes")]
    command += ["--set", f"ray.address={ray.get_runtime_context().gcs_address}"]
    with (place.folder / "log").open("w") as log:
        killed = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        while killed.poll() is None and not any(place.answers.glob("_manifests/*.json")):
            time.sleep(0.02)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, (place.folder / "log").read_text()
    done = len(manifests(place.answers))
    assert 0 < done < SHARDS

    night, said, failed = place.start()
    assert (night.exit_code, night.outcomes["answered"], failed) == (0, 1, [])
    (resumed,) = [line for line in said if "committed already" in line]
    assert f"{SHARDS} rows in {SHARDS} shards" in resumed
    assert_whole(place.answers, SHARDS)


@pytest.mark.slow
def test_two_nights_at_once_lose_nothing_and_double_nothing(place):
    place.write_recipe()
    place.add("a.jsonl")
    place.add("b.jsonl", first=10)
    with ThreadPoolExecutor(2) as pool:
        nights = [result[0] for result in pool.map(lambda _: place.start(), range(2))]
    assert {night.exit_code for night in nights} <= {0, 2}  # 2: the other was at it
    assert sum(night.outcomes["answered"] for night in nights) == 1
    assert sum(night.outcomes["failed"] for night in nights) == 0
    assert_whole(place.answers, 2 * ROWS)
    assert len(list((place.answers / "data").iterdir())) == len(manifests(place.answers))  # none twice
    assert not list(place.answers.glob("_lock*"))
    night, _, _ = place.start()
    assert (night.exit_code, night.summary_line()) == (0, "complete=1 answered=0 held=0 failed=0")
