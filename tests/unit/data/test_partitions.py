"""Keys of Hive partitions in a file's path."""

from pathlib import Path

import pytest

from flexray.data import scan
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_all, record, write


@pytest.mark.parametrize("extension", ["jsonl", "json", "parquet"])
def test_a_key_in_the_path_is_a_field_of_records_that_have_none(tmp_path: Path, extension: str) -> None:
    for number, folder in enumerate(
        ("relation=P36", "relation=born%20in", "relation=__HIVE_DEFAULT_PARTITION__")
    ):
        write(tmp_path / "x=1" / folder / f"part-0.{extension}", [record(10 * number + i) for i in range(2)])
    own = [record(90, relation="own"), record(91, relation="other")]
    write(tmp_path / "x=1" / "relation=P99" / f"part-0.{extension}", own)
    questions = read_all(data_config(tmp_path / f"x=1/*/*.{extension}", fields={"relation": "relation"}))
    assert {q.source_id: q.relation for q in questions} == {
        "q0": "P36",
        "q1": "P36",
        "q10": "born in",
        "q11": "born in",
        "q20": "",
        "q21": "",
        "q90": "own",
        "q91": "other",
    }
    assert not any(q.error for q in questions)


def test_other_keys_add_nothing_and_a_lacking_field_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "day=1" / "a.parquet", [record(1)])
    plain = write(tmp_path / "b.parquet", [record(1)])
    places = ["source_file"]
    assert scan(data_config(path)).drop_columns(places).equals(scan(data_config(plain)).drop_columns(places))
    with pytest.raises(DataError, match="'relation'"):
        scan(data_config(path, fields={"relation": "relation"}))
