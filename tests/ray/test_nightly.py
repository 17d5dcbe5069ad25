"""A night's work: what is new or unfinished is done, once, and nothing else is touched."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
import yaml

from flexray.runs.nightly import Night, nightly
from flexray.sink import OutputFolder, hold
from tests.ray.jobs import assert_whole, make_tree, manifests, question, rows_of, write

pytestmark = pytest.mark.usefixtures("local_ray")

ROWS = 4  # of a file, in two shards
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

    @property
    def batches(self) -> list[Path]:
        return sorted(self.answers.iterdir())

    def batch_of(self, question_id: str) -> Path:
        (found,) = [folder for folder in self.batches if f"qa/test/{question_id}" in rows_of(folder)]
        return found

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
    """A place of its own after that night, with its recipe."""
    before = first_night[0]
    for name in ("in", "answers"):
        shutil.copytree(before.folder / name, tmp_path / name)
    place = Place(tmp_path, before.model)
    place.write_recipe()
    return place


def test_the_first_night_does_everything(first_night):
    place, night, said, failed = first_night
    assert (night.exit_code, night.summary_line(), failed) == (0, "complete=0 answered=2 held=0 failed=0", [])
    a = place.batch_of("q0")
    assert said[0] == "recipes/night.yaml: 2 batches"
    assert [line for line in said if "a.jsonl" in line] == [
        f"in/a.jsonl: new -> answers/{a.name}",
        f"in/a.jsonl: done and verified, {ROWS} rows, 0 errors",
    ]
    assert_whole(a, ROWS)
    assert_whole(place.batch_of("bad"), 3)


def test_a_second_start_does_nothing(later):
    before = later.written()
    night, said, failed = later.start()
    assert (night.exit_code, night.summary_line(), failed) == (0, "complete=2 answered=0 held=0 failed=0", [])
    a, b = later.batch_of("q0"), later.batch_of("bad")
    assert said[1:3] == [
        f"in/a.jsonl: complete, {ROWS} rows, 0 errors -> answers/{a.name}",
        f"in/b.jsonl: complete, 3 rows, 1 errors -> answers/{b.name}",
    ]
    assert later.written() == before


def test_a_new_file_is_done_alone_and_a_renamed_one_is_known(later):
    before, batches = later.written(), later.batches
    later.add("c.jsonl", first=20)
    (later.folder / "in" / "a.jsonl").rename(later.folder / "in" / "renamed.jsonl")
    night, _, failed = later.start()
    assert (night.exit_code, night.summary_line(), failed) == (0, "complete=2 answered=1 held=0 failed=0", [])
    assert before.items() <= later.written().items()
    (new,) = set(later.batches) - set(batches)
    assert_whole(new, ROWS)
    assert set(rows_of(new)) == {f"qa/test/q{i}" for i in range(20, 20 + ROWS)}


def test_what_fails_or_is_held_by_another_stops_nothing_else(later):
    begun = later.batch_of("q0")
    next((begun / "_manifests").iterdir()).unlink()
    later.add("aa.jsonl", rows=0)
    (later.folder / "recipes" / "bad.yaml").write_text("{data: {names: no such key}}")
    with hold(OutputFolder(str(begun)), log=lambda line: None, beat_seconds=0.2):
        night, said, (bad, held, empty) = later.start()
    assert (night.exit_code, night.summary_line()) == (2, "complete=1 answered=0 held=1 failed=2")
    assert f"in/a.jsonl: unfinished, 1 of 2 shards -> answers/{begun.name}" in said
    assert any(line.startswith("in/b.jsonl: complete, ") for line in said)
    assert bad.startswith(f"{later.folder}/recipes/bad.yaml: ")
    assert "data.names: " in bad
    assert held.startswith(f"{later.folder}/in/a.jsonl: left alone: {begun}: another run is at work there: ")
    assert empty.startswith(f"{later.folder}/in/aa.jsonl: ")
    assert ": no rows in any file" in empty


def test_another_configuration_needs_another_output_folder(later):
    before = later.written()
    night, said, failed = later.start(overrides=["prompt.instruction=Another."])
    assert (night.exit_code, night.outcomes["failed"]) == (2, 2)
    a = later.batch_of("q0")
    assert said[1] == f"in/a.jsonl: answered with another configuration -> answers/{a.name}"
    assert 'prompt.instruction: "Answer." -> "Another."' in failed[0]
    night, _, failed = later.start(overrides=[f"output={a}"])
    assert night.exit_code == 2
    assert f"{a}: holds a run itself, and a night puts the run of each file below it" in failed[0]
    assert later.written() == before


def test_a_complete_batch_above_its_limits_is_told_by_exit_code_1(later):
    night, _, failed = later.start(overrides=["limits.max_error_share=0.1"])
    assert (night.exit_code, night.summary_line()) == (1, "complete=1 answered=0 held=0 failed=1")
    assert "1 of 3 rows are errors, more than limits.max_error_share (0.1) allows" in failed[0]


def test_error_rows_are_tried_again_and_old_rows_read_back_only_if_asked(later):
    night, said, _ = later.start(retry=True)
    assert (night.exit_code, night.summary_line()) == (0, "complete=1 answered=1 held=0 failed=0")
    assert "  retried=1 answered=0 still_errors=1" in said
    file = next((later.batch_of("q0") / "data").iterdir())
    file.write_bytes(bytes(file.stat().st_size))  # of another size it would be seen at once
    assert later.start()[0].exit_code == 0
    night, _, failed = later.start(verify_all=True)
    assert (night.exit_code, night.outcomes["failed"]) == (1, 1)
    assert " damaged=1 " in failed[0]
    assert str(file) in failed[0]


@pytest.mark.slow
def test_a_killed_night_is_finished_by_the_next(place):
    place.write_recipe(data={"shard_rows": 1}, generation={"max_new_tokens": 24, "stop_at_newline": False})
    place.add("a.jsonl", rows=SHARDS)
    command = [sys.executable, "-m", "flexray.cli", "nightly", str(place.folder / "recipes")]
    command += ["--set", f"ray.address={ray.get_runtime_context().gcs_address}"]
    with (place.folder / "log").open("w") as log:
        killed = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        while killed.poll() is None and not any(place.folder.glob("answers/*/_manifests/*.json")):
            time.sleep(0.02)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, (place.folder / "log").read_text()
    (begun,) = place.batches
    done = len(manifests(begun))
    assert 0 < done < SHARDS

    night, said, failed = place.start()
    assert (night.exit_code, night.outcomes["answered"], failed) == (0, 1, [])
    (unfinished,) = [line for line in said if "unfinished" in line]
    assert done <= int(unfinished.split()[2]) < SHARDS  # Ray outlives the night: a commit may have gone on
    assert place.batches == [begun]
    assert_whole(begun, SHARDS)


@pytest.mark.slow
def test_two_nights_at_once_lose_nothing_and_double_nothing(place):
    place.write_recipe()
    place.add("a.jsonl")
    place.add("b.jsonl", first=10)
    with ThreadPoolExecutor(2) as pool:
        nights = [result[0] for result in pool.map(lambda _: place.start(), range(2))]
    assert {night.exit_code for night in nights} <= {0, 2}  # 2: it came to a batch that the other was at
    assert sum(night.outcomes["answered"] for night in nights) == 2
    assert sum(night.outcomes["failed"] for night in nights) == 0
    assert len(place.batches) == 2
    for folder in place.batches:
        assert_whole(folder, ROWS)
        assert len(list((folder / "data").iterdir())) == 2  # no shard was computed twice
        assert not list(folder.glob("_lock*"))
    night, _, _ = place.start()
    assert (night.exit_code, night.summary_line()) == (0, "complete=2 answered=0 held=0 failed=0")
