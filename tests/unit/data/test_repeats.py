"""Distinct row ids, against a plain definition of them."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.data import find_repeats, repeats
from flexray.data.repeats import family_of
from flexray.errors import DataError


def distinct(row_ids: list[str]) -> tuple[list[str], dict[int, int]]:
    """The ids with each repeated one as id#2, id#3, ..; and the index of the first row of each repeat."""
    taken = set(row_ids)
    names, first_of = [], {}
    for index, row_id in enumerate(row_ids):
        first = row_ids.index(row_id)
        name, number = row_id, 2
        while first < index and name in taken:
            name, number = f"{row_id}#{number}", number + 1
        taken.add(name)
        names.append(name)
        if first < index:
            first_of[index] = first
    return names, first_of


@given(
    row_ids=st.lists(st.sampled_from(["x", "x#2", "x#2#2", "x#3", "#", "#2", "y", "é#"]), max_size=14),
    cut=st.integers(0, 14),
)
def test_each_repeat_gets_a_free_name_and_knows_the_first_row(row_ids: list[str], cut: int) -> None:
    parts = [pa.array(row_ids[:cut], pa.string()), pa.array(row_ids[cut:], pa.string())]
    found = find_repeats(pa.chunked_array(parts))
    names = list(row_ids)
    for repeat in found:
        names[repeat.index] = repeat.row_id
    assert (names, {repeat.index: repeat.first for repeat in found}) == distinct(row_ids)
    assert len(set(names)) == len(names)
    families = [family_of(pa.array(some, pa.string())).to_pylist() for some in (row_ids, names)]
    assert families[0] == families[1]
    assert [repeat.index for repeat in found] == sorted(repeat.index for repeat in found)


def test_an_id_of_more_rows_than_can_be_numbered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MOST", 3)
    assert [repeat.row_id for repeat in find_repeats(pa.array(["a"] * 3))] == ["a#2", "a#3"]
    with pytest.raises(
        DataError, match=r"more than 3 rows have the id 'a'\. Name the field .* data\.fields\.id"
    ):
        find_repeats(pa.array(["a"] * 4))


@pytest.mark.parametrize("row_ids", [[], ["a"], ["a", "b", "a#2"]])
def test_distinct_ids_stay(row_ids: list[str]) -> None:
    assert find_repeats(pa.array(row_ids, pa.string())) == []
