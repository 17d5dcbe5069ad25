"""Starts at random, with commits and losses between them, against a plain model of the table."""

import random

import pyarrow as pa
import pytest

from flexray.api import read
from flexray.data.plan_rows import read_planned
from flexray.sink import committed_shards, compact, read_committed, specs_of, verify
from flexray.sink.plan import staging, writer
from flexray.sink.plan.scratch import FolderScratch
from flexray.sink.plan.site import Site
from flexray.sink.records import RUN_FILE
from tests.unit.sink import builders
from tests.unit.sink.builders import commit, planned, question, row, start, table

POOL = [f"qa/test/{i}" for i in range(14)]
METHODS = ["m", "n", "o"]


class Model:
    """For each row id, what was asked under it, one after the other, and which methods have answered each."""

    def __init__(self):
        self.asked = {}
        self.rows, self.methods = {}, ()

    def start(self, rows, methods):
        """Plan anew; returns the keys that are to be computed."""
        self.rows, self.methods = rows, methods
        for row_id, layers in self.asked.items():
            if layers and not layers[-1][1]:  # planned, and never committed
                layers.pop()
            assert all(answered for _, answered in layers), row_id
        for row_id, text in rows.items():
            layers = self.asked.setdefault(row_id, [])
            if not layers or layers[-1][0] != text:
                layers.append((text, set()))
        return {(m, i) for i in rows for m in methods if m not in self.asked[i][-1][1]}

    def commit(self, shard):
        for row_id in shard.row_ids:
            answered = self.asked[row_id][-1][1]
            assert not answered & set(shard.methods), "computed twice"
            answered |= set(shard.methods)

    def seen(self, everything=False):
        return {
            (method, row_id): layers[-1][0]
            for row_id, layers in self.asked.items()
            if layers and (everything or row_id in self.rows)
            for method in layers[-1][1]
            if everything or method in self.methods
        }


def as_read(tables):
    rows = pa.concat_tables([*tables]).to_pylist() if tables else []
    found = {(r["method"], r["row_id"]): r["question"] for r in rows}
    assert len(found) == len(rows), "a row is seen twice"
    return found


def choose(luck, rows, methods):
    """What the next start names: often nearly what the last one did."""
    rows = dict(rows)
    change = luck.choice(["rows", "rows", "methods", "contents", "all", "nothing"])
    if change in ("rows", "all"):
        chosen = luck.sample(POOL, luck.randint(1, len(POOL)))
        rows = {i: rows.get(i, "q0") for i in chosen}
    if change in ("contents", "all"):
        for row_id in luck.sample(sorted(rows), luck.randint(0, min(3, len(rows)))):
            rows[row_id] = f"q{luck.randint(0, 2)}"
    if change in ("methods", "all"):
        methods = tuple(luck.sample(METHODS, luck.randint(1, 3)))
    return rows, methods


def lose(folder, run, luck):
    """Lose files of the run at random; returns their names."""
    files = [f"plan/{name}" for name in folder.list("plan")]
    lost = luck.sample(files, luck.randint(0, len(files))) if luck.random() < 0.3 else []
    if committed_shards(folder, run) and luck.random() < 0.2:  # else the numbers begin again
        lost.append(RUN_FILE)
    for name in lost:
        if name == RUN_FILE or luck.random() < 0.5:
            folder.remove(name)
        else:
            folder.write_bytes(name, folder.read_bytes(name)[:-9])
    return lost


def plan_in_pieces(folder, monkeypatch):
    """Each start plans as that of a large table does."""
    site = Site(map, FolderScratch.new(folder))
    monkeypatch.setattr(staging, "PIECE_ROWS", 2)
    monkeypatch.setattr(writer, "FILE_ROWS", 3)
    monkeypatch.setattr(builders, "stage_table", lambda table: staging.stage_table(table, site, buckets=3))


@pytest.mark.parametrize("losses", [False, True], ids=["whole", "with losses"])
@pytest.mark.parametrize("seed", range(4))
def test_each_wanted_row_is_planned_once_and_never_computed_twice(folder, seed, losses, monkeypatch):
    if seed % 2:
        plan_in_pieces(folder, monkeypatch)
    luck = random.Random(seed)
    model, run = Model(), None
    rows, methods = {POOL[0]: "q0"}, ("m",)
    shards, withdrawn = {}, set()
    for step in range(14):
        before = rows, methods
        rows, methods = choose(luck, rows, methods)
        lost = lose(folder, run, luck) if run and losses else []
        if RUN_FILE in lost:
            shards.clear()  # the numbers of shards that have left no trace are used again
        asked = [question(i, question=text) for i, text in rows.items()]
        run = start(folder, asked, methods, replace_changed=True, shard_rows=luck.randint(1, 5))
        if step == 0 or lost or before != (rows, methods):
            expected = model.start(rows, methods)
        # what is planned
        done = committed_shards(folder, run)
        todo = [shard for shard in planned(folder, run) if shard.shard_id not in done]
        keys = [(m, i) for shard in todo for m in shard.methods for i in shard.row_ids]
        assert sorted(keys) == sorted(expected)
        specs = specs_of(folder, run)
        for shard in todo:
            text = dict(
                zip(shard.row_ids, read_planned(specs[shard.shard_id])["question"].to_pylist(), strict=True)
            )
            assert text == {i: rows[i] for i in shard.row_ids}
            assert shards.setdefault(shard.shard_id, shard) == shard, "a number is used twice"
        withdrawn |= shards.keys() - done.keys() - {shard.shard_id for shard in todo}
        # what is committed
        for shard in luck.sample(todo, luck.randint(0, len(todo))):
            commit_as_asked(folder, run, shard, rows)
            model.commit(shard)
            expected -= {(m, i) for m in shard.methods for i in shard.row_ids}
        if withdrawn and not losses:  # without its record, a table cannot know of stragglers in all cases
            late = shards[luck.choice(sorted(withdrawn))]
            commit_as_asked(folder, run, late, dict.fromkeys(POOL, "late"))
        if luck.random() < 0.3:
            compact(folder, run.fingerprint, max_singles=0, max_files=2)
            withdrawn.clear()  # a writer looks for single manifests only
        # what is seen
        for everything in (False, True):
            seen = model.seen(everything)
            assert as_read(list(read_committed(folder, everything=everything))) == seen
            assert as_read([read(folder.url, everything=everything).to_dataset().to_table()]) == seen
        report = verify(folder)
        assert report.missing == len(expected)
        assert (report.doubled, report.damaged, report.unaccounted) == (0, 0, 0)


def commit_as_asked(folder, run, shard, texts):
    rows = [
        row(row_id, shard.shard_id, method=method, question=texts[row_id])
        for method in shard.methods
        for row_id in shard.row_ids
    ]
    return commit(folder, run, shard, table=table(shard, rows=rows))
