"""Distinct row ids, against a plain definition of them."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.data import find_repeats


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
    repeats = find_repeats(pa.chunked_array(parts))
    names = list(row_ids)
    for repeat in repeats:
        names[repeat.index] = repeat.row_id
    assert (names, {repeat.index: repeat.first for repeat in repeats}) == distinct(row_ids)
    assert len(set(names)) == len(names)
    assert [repeat.index for repeat in repeats] == sorted(repeat.index for repeat in repeats)


@pytest.mark.parametrize("row_ids", [[], ["a"], ["a", "b", "a#2"]])
def test_distinct_ids_stay(row_ids: list[str]) -> None:
    assert find_repeats(pa.array(row_ids, pa.string())) == []
