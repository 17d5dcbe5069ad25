"""Whoever commits and compacts meanwhile: a reader sees each committed shard, once."""

import threading
import time

import pytest

from flexray.sink import DamageError, OutputFolder, committed_shards, compact, verify
from flexray.sink.commit.manifests import find_manifests
from flexray.sink.records import manifest_name
from tests.unit.sink.builders import A, B, commit, finished, planned, start


@pytest.fixture
def after_the_next_listing(monkeypatch):
    """Lets something happen right behind a reader's next listing, which may be told something else."""

    def arm(happen, told=None):
        listed = OutputFolder.sizes

        def once(self, name=""):
            names = listed(self, name)
            monkeypatch.setattr(OutputFolder, "sizes", listed)
            happen()
            return names if told is None else told

        monkeypatch.setattr(OutputFolder, "sizes", once)

    return arm


def test_of_two_manifests_of_the_same_revision_all_readers_take_the_same(folder):
    run = start(folder)
    first = commit(folder, run, A)
    compact(folder, run.fingerprint, max_singles=0)
    second = commit(folder, run, A)  # by a writer that was thought to be dead
    assert second != first
    winner = committed_shards(folder, run)[A.shard_id]
    assert winner in (first, second)
    compact(folder, run.fingerprint, max_singles=0)
    assert committed_shards(folder, run) == {A.shard_id: winner}
    compact(folder, run.fingerprint, max_files=0)
    assert committed_shards(folder, run) == {A.shard_id: winner}


def test_a_manifest_that_is_compacted_while_it_is_read_is_found(folder, after_the_next_listing):
    run = finished(folder)
    before = committed_shards(folder, run)
    after_the_next_listing(lambda: compact(folder, run.fingerprint, max_singles=0))
    assert committed_shards(folder, run) == before


def test_a_listing_that_misses_what_is_compacted_meanwhile_is_not_believed(folder, after_the_next_listing):
    run = finished(folder)
    before = committed_shards(folder, run)
    # what a paged listing can give: the first page from before the compaction, the rest from after
    after_the_next_listing(lambda: compact(folder, run.fingerprint, max_singles=0), told={})
    assert committed_shards(folder, run) == before


def test_compact_files_that_are_merged_while_they_are_read_are_followed(folder, after_the_next_listing):
    run = start(folder)
    for spec in (A, B):
        commit(folder, run, spec)
        compact(folder, run.fingerprint, max_singles=0)
    before = committed_shards(folder, run)
    after_the_next_listing(lambda: compact(folder, run.fingerprint, max_files=0))
    assert committed_shards(folder, run) == before


def test_a_manifest_that_vanishes_is_damage_not_an_uncommitted_shard(folder, after_the_next_listing):
    run = finished(folder)
    after_the_next_listing(lambda: folder.remove(manifest_name(B.shard_id)))
    with pytest.raises(DamageError, match=rf"{B.shard_id}\.json: was removed while it was read"):
        committed_shards(folder, run)


def test_readers_beside_commits_and_compactions_see_no_shard_vanish(folder):
    run = start(folder, [f"qa/test/{i}" for i in range(60)], shard_rows=1)
    shards = planned(folder, run)
    ended, seen, faults = threading.Event(), [0], []

    def read():
        try:
            while not ended.is_set():
                seen.append(len(find_manifests(folder, run.fingerprint).visible()))
        except Exception as e:
            faults.append(e)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for i, spec in enumerate(shards):
            commit(folder, run, spec)
            while i == 0 and len(seen) == 1 and not faults:  # the reader has begun
                time.sleep(0.001)
            if i % 5 == 4:
                compact(folder, run.fingerprint, max_singles=0, max_files=3)
    finally:
        ended.set()
        reader.join()
    assert faults == []
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert verify(folder).ok
