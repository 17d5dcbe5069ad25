"""Read the rows of one shard as Questions, and check that they are those that were planned."""

from __future__ import annotations

from hashlib import sha256

from flexray.config.data import DataConfig
from flexray.data.identity import Identity, identify
from flexray.data.question import Question, ShardSpec
from flexray.data.record import Record
from flexray.data.source import Source
from flexray.data.validate import to_question
from flexray.errors import DataError
from flexray.storage import redact


def read_shard(spec: ShardSpec, config: DataConfig) -> list[Question]:
    """Read the rows of a shard and check each.

    Returns:
        `spec.num_rows` Questions whose row ids are `spec.row_ids`, in order. A faulty row has its faults in
        `error`, and what could be read in the other fields.

    Raises:
        DataError: the file, a template or a joined paraphrase was changed or deleted since the scan.
        OSError: the storage failed; another attempt may succeed.
    """
    source = Source(config)
    try:
        records = source.read_slice(spec)
    except FileNotFoundError as e:
        raise _changed(spec, "it no longer exists") from e
    if len(records) != spec.num_rows:
        raise _changed(
            spec,
            f"{spec.num_rows} rows were planned from row {spec.first_row}, but {len(records)} were found",
        )
    identities = [identify(record, config) for record in records]
    _check_unchanged(spec, records, identities, (*config.template_files, *config.paraphrase_files))
    first = {index: (redact(file), row) for index, file, row in spec.duplicate_of}
    return [
        to_question(record, identity, config, redact(spec.file), spec.row_ids[i], first.get(i))
        for i, (record, identity) in enumerate(zip(records, identities, strict=True))
    ]


def _check_unchanged(
    spec: ShardSpec, records: list[Record], identities: list[Identity], beside: tuple[str, ...]
) -> None:
    renamed = {index for index, _, _ in spec.duplicate_of}
    digest = sha256()
    found = zip(spec.row_ids, records, identities, strict=True)
    for i, (planned, record, identity) in enumerate(found):
        digest.update(identity.digest)
        if (planned.rpartition("#")[0] if i in renamed else planned) != identity.row_id:
            raise _changed(spec, f"row {record.row} was {planned} and is now {identity.row_id}")
    if spec.digest and digest.hexdigest() != spec.digest:
        rows = f"rows {records[0].row} to {records[-1].row}"
        or_in = f" or in {redact(', '.join(beside))}" if beside else ""
        raise _changed(spec, f"the ids are the same, but the content differs in {rows}{or_in}")


def _changed(spec: ShardSpec, what: str) -> DataError:
    return DataError(
        f"{redact(spec.file)}: was changed after shard {spec.shard_id} was planned: {what}. "
        "Restore it, or start a new run with a new output folder."
    )
