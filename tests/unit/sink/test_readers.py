"""Whoever commits and compacts meanwhile: a reader sees each committed shard, once."""

import threading

import pytest

from flexray.sink import DamageError, OutputFolder, committed_shards, compact, verify
from flexray.sink.manifests import find_manifests
from flexray.sink.records import manifest_name
from tests.unit.sink.builders import SHARDS, commit, finished, shard, start

A, B, _ = SHARDS


def test_of_two_manifests_of_the_same_revision_all_readers_take_the_same(folder):
    run = start(folder)
    first = commit(folder, run, A)
    compact(folder, run.fingerprint, max_singles=0)
    second = commit(folder, run, A)  # by a writer that was thought to be dead
    assert second != first
    winner = committed_shards(folder, run.fingerprint)["a"]
    assert winner in (first, second)
    compact(folder, run.fingerprint, max_singles=0)
    assert committed_shards(folder, run.fingerprint) == {"a": winner}
    compact(folder, run.fingerprint, max_files=0)
    assert committed_shards(folder, run.fingerprint) == {"a": winner}


def test_a_manifest_that_is_compacted_while_it_is_read_is_found(folder, monkeypatch):
    run = finished(folder)
    before = committed_shards(folder, run.fingerprint)
    listed = OutputFolder.list

    def then_compacted(self, name=""):
        names = listed(self, name)
        monkeypatch.setattr(OutputFolder, "list", listed)
        compact(self, run.fingerprint, max_singles=0)
        return names

    monkeypatch.setattr(OutputFolder, "list", then_compacted)
    assert committed_shards(folder, run.fingerprint) == before


def test_a_listing_that_misses_what_is_compacted_meanwhile_is_not_believed(folder, monkeypatch):
    run = finished(folder)
    before = committed_shards(folder, run.fingerprint)
    listed = OutputFolder.list

    def torn(self, name=""):
        """What a paged listing can give: the first page from before the compaction, the rest from after."""
        monkeypatch.setattr(OutputFolder, "list", listed)
        compact(self, run.fingerprint, max_singles=0)
        return []

    monkeypatch.setattr(OutputFolder, "list", torn)
    assert committed_shards(folder, run.fingerprint) == before


def test_compact_files_that_are_merged_while_they_are_read_are_followed(folder, monkeypatch):
    run = start(folder)
    for spec in (A, B):
        commit(folder, run, spec)
        compact(folder, run.fingerprint, max_singles=0)
    before = committed_shards(folder, run.fingerprint)
    listed = OutputFolder.list

    def then_merged(self, name=""):
        names = listed(self, name)
        monkeypatch.setattr(OutputFolder, "list", listed)
        compact(self, run.fingerprint, max_files=0)
        return names

    monkeypatch.setattr(OutputFolder, "list", then_merged)
    assert committed_shards(folder, run.fingerprint) == before


def test_a_manifest_that_vanishes_is_damage_not_an_uncommitted_shard(folder, monkeypatch):
    run = finished(folder)
    listed = OutputFolder.list

    def then_deleted(self, name=""):
        names = listed(self, name)
        monkeypatch.setattr(OutputFolder, "list", listed)
        self.remove(manifest_name("b"))
        return names

    monkeypatch.setattr(OutputFolder, "list", then_deleted)
    with pytest.raises(DamageError, match=r"b\.json: vanished while it was read"):
        committed_shards(folder, run.fingerprint)


def test_readers_beside_commits_and_compactions_see_no_shard_vanish(folder):
    shards = [shard(f"s{i:03d}", 1) for i in range(60)]
    run = start(folder, shards=shards)
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
            if i % 5 == 4:
                compact(folder, run.fingerprint, max_singles=0, max_files=3)
    finally:
        ended.set()
        reader.join()
    assert faults == []
    assert seen == sorted(seen)
    assert verify(folder).ok
