"""Ray Data hands rows on as they are, however it merges and cuts their blocks."""

import pyarrow as pa
import pytest
import ray.data

from flexray.pipeline import columns
from tests.unit.pipeline.test_columns import FAILURE, SHARDS, answered, prepared

STAGES = {
    "prepared": (prepared, columns.prepared_row, columns.read_prepared, columns.PREPARED_SCHEMA),
    "answered": (answered, columns.answered_row, columns.read_answered, columns.ANSWERED_SCHEMA),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("batch_size", [1, 4, None])
def test_shards_and_failures_pass_through_ray_data(local_ray, stage, batch_size):
    make, write, read, schema = STAGES[stage]
    shards = [make(number, rows) for number, rows in enumerate(SHARDS)]
    rows = [*map(write, shards), columns.failure_row(FAILURE, schema)]

    def again(batch: pa.Table):
        """A stage that reads all shards of a batch and hands them on, one by one."""
        for shard in read(batch):
            yield columns.failure_row(shard, schema) if shard == FAILURE else write(shard)

    stream = ray.data.from_blocks([pa.concat_tables(rows[:2]), *rows[2:]]).map_batches(
        again, batch_size=batch_size, batch_format="pyarrow", num_cpus=0.5
    )
    found = [shard for batch in stream.iter_batches(batch_format="pyarrow") for shard in read(batch)]
    assert sum(shard == FAILURE for shard in found) == 1
    by_id = {shard.spec.shard_id: shard for shard in found if shard != FAILURE}
    assert by_id == {shard.spec.shard_id: shard for shard in shards}
