"""What a shard costs on S3, by requests; docs/scale.md makes a price of them."""

import random
import re
from collections import Counter

import pyarrow as pa
import pytest

from flexray.data.plan_rows import read_planned
from flexray.data.question import ShardSpec
from flexray.sink import OutputFolder, compact, specs_of, whole_shards
from flexray.sink.plan.files import write_part
from tests.unit.sink.builders import A, B, commit, found, question, start

ROWS, SHARDS = 64, 24


@pytest.fixture
def folder(s3, bucket):
    return OutputFolder(f"s3://{bucket}/out")


@pytest.fixture
def asked(s3):
    """Calls something; returns how many requests there were, by kind and by the folder of the file."""

    def kind(request):
        if "list-type" in request.target:
            return "LIST " + re.search(r"prefix=(?:out%2F)?(\w*)", request.target)[1]
        return f"{request.method} {request.path.split('/')[-2]}"

    def asked(call):
        s3.requests.clear()
        call()
        return Counter(map(kind, s3.requests))

    return asked


def test_a_shard_is_committed_by_two_puts_and_two_gets_and_nothing_is_listed(folder, asked):
    run = start(folder)
    found = asked(lambda: commit(folder, run, A))
    assert found == {"PUT data": 1, "PUT _manifests": 1, "GET _manifests": 2}


def test_a_shard_is_read_from_the_plan_by_a_head_and_few_gets(folder, asked):
    run = start(folder)
    spec = specs_of(folder, run)[A.shard_id]
    assert asked(lambda: read_planned(spec)) == {"HEAD plan": 1, "GET plan": 1}  # a small file: all of it


def test_of_a_large_plan_file_little_more_than_the_shard_is_fetched(folder, s3, asked):
    rnd = random.Random(0)
    rows = [question(f"q{i}", question=rnd.randbytes(2_000).hex()) for i in range(ROWS * SHARDS)]
    part = write_part(
        folder,
        0,
        found(rows),
        shards=[ROWS] * SHARDS,
        first_shard=0,
        methods=["m"],
        fingerprint="a" * 64,
        replaces=pa.array([False] * len(rows)),
    )
    assert part.file.bytes > 3_000_000
    url = folder.url_of(part.file.file)
    spec = ShardSpec(shard_id="a", file=url, row_group=1, num_rows=ROWS, methods=("m",))
    requests = asked(lambda: read_planned(spec))
    assert requests["HEAD plan"] == 1
    assert requests["GET plan"] <= 3
    ranges = [re.search(rb"bytes=(\d+)-(\d+)", request.head) for request in s3.requests]
    assert sum(int(r[2]) + 1 - int(r[1]) for r in ranges if r) < 1_000_000


def test_a_start_reads_each_manifest_once_or_all_in_one_file(folder, asked):
    run = start(folder)
    for shard in (A, B):
        commit(folder, run, shard)
    lists = {"LIST _manifests": 2, "LIST data": 1}
    assert asked(lambda: whole_shards(folder, run)) == {**lists, "GET _manifests": 2}
    merged = asked(lambda: compact(folder, run.fingerprint, max_singles=0))
    assert merged == {
        "LIST _manifests": 1,
        "GET _manifests": 2 + 1,
        "PUT _manifests": 1,
        "DELETE _manifests": 2,
    }
    assert asked(lambda: whole_shards(folder, run)) == {**lists, "GET _manifests": 1}
