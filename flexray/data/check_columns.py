"""Check records column by column, and make their plan rows."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flexray.config.data import DataConfig
from flexray.data.field_columns import NUMBERS, TEXTS, FieldColumns
from flexray.data.identity import row_id_prefix
from flexray.data.plan_rows import with_digests

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Lengths = np.ndarray[Any, np.dtype[np.int32]]


def check_columns(
    found: FieldColumns, config: DataConfig, file: str, first_row: int
) -> tuple[pa.Table, Mask]:
    """The plan rows (PLAN_SCHEMA) of those records that are good beyond doubt, in order, and which these are.

    Args:
        file: the file as messages name it.
        first_row: number of the first record.
    """
    include, most = config.include_question, config.max_paraphrases
    good = _has_text(found.id) & _has_text(found.question)
    lists = [array for array in (found.paraphrases, found.answers, found.candidates) if array is not None]
    for array in lists:
        good &= _has_texts(array)
    if found.num_manual is not None:
        good &= _all(pc.greater_equal(found.num_manual, 0))
        good &= _all(pc.less(found.num_manual, 2**31))
    if found.relation is not None:
        good &= _all(pc.is_valid(found.relation))
    if found.confidences is not None:
        good &= _are_shares(found.confidences)
    rows = pa.array(np.flatnonzero(good))
    count = len(rows)

    def picked(array: pa.Array) -> pa.Array:
        return array if count == len(good) else array.take(rows)

    source_id, question = picked(found.id), picked(found.question)
    paraphrases = None if found.paraphrases is None else picked(found.paraphrases)
    if include:
        paraphrases = _with_first(question, paraphrases)
    assert paraphrases is not None, "the configuration has a source of paraphrases"
    confidences = pa.nulls(count, NUMBERS) if found.confidences is None else picked(found.confidences)
    if most is not None:
        paraphrases, confidences = (pc.list_slice(a, 0, most) for a in (paraphrases, confidences))
    num_paraphrases = pc.list_value_length(paraphrases)
    num_manual = pa.repeat(pa.scalar(0, pa.int32()), count)
    if found.num_manual is not None:
        num_manual = pc.add(picked(found.num_manual), int(include))
        num_manual = pc.min_element_wise(num_manual, num_paraphrases).cast(pa.int32())
    relation = pa.repeat("", count)
    if found.relation is not None:
        relation = picked(found.relation)
        relation = pc.if_else(pa.array(_has_text(relation)), relation, "")
    columns = {
        "row_id": pc.binary_join_element_wise(row_id_prefix(config), source_id, ""),
        "source_file": pa.repeat(file, count),
        "source_row": pc.add(rows, first_row).cast(pa.int64()),
        "source_id": source_id,
        "question": question,
        "paraphrases": paraphrases,
        "answers": pa.nulls(count, TEXTS) if found.answers is None else picked(found.answers),
        "relation": relation,
        "num_manual": num_manual,
        "confidences": confidences,
        "candidates": pa.nulls(count, TEXTS) if found.candidates is None else picked(found.candidates),
        "error": pa.repeat("", count),
    }
    if found.confidences is not None:
        same = _all(pc.equal(pc.list_value_length(confidences), num_paraphrases))
        if not same.all():
            kept = pa.array(np.flatnonzero(same))
            columns = {name: array.take(kept) for name, array in columns.items()}
            good[rows.to_numpy()[~same]] = False
    return with_digests(columns), good


def _all(condition: pa.Array) -> Mask:
    """Where a condition is true; null counts as false."""
    return cast(Mask, pc.fill_null(condition, False).to_numpy(zero_copy_only=False))


def _has_text(texts: pa.Array) -> Mask:
    """Where a text is not null and has more than white space, as `str.strip` understands it."""
    return _all(pc.greater(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0))


def _has_texts(lists: pa.Array) -> Mask:
    """Where a list is not empty, and each of its texts has more than white space."""
    lengths = _lengths(lists)
    return (lengths > 0) & ~_any(~_has_text(lists.flatten()), lengths)


def _are_shares(lists: pa.Array) -> Mask:
    """Where a list is not null, and each of its numbers is in [0, 1]."""
    values = lists.flatten()
    inside = _all(pc.and_(pc.greater_equal(values, 0), pc.less_equal(values, 1)))
    return _all(pc.is_valid(lists)) & ~_any(~inside, _lengths(lists))


def _lengths(lists: pa.Array) -> Lengths:
    """The length of each list; 0 for null."""
    return cast(Lengths, pc.fill_null(pc.list_value_length(lists), 0).to_numpy())


def _any(marks: Mask, lengths: Lengths) -> Mask:
    """For each list of these lengths, whether an element is marked."""
    found = np.zeros(len(lengths), bool)
    if marks.any():
        found[np.repeat(np.arange(len(lengths)), lengths)[marks]] = True
    return found


def _with_first(first: pa.Array, lists: pa.Array | None) -> pa.Array:
    """Each list with one more element in front."""
    count = len(first)
    if lists is None:
        return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), first)
    rest = lists.flatten()
    ends = np.zeros(count + 1, np.int32)
    ends[1:] = np.cumsum(pc.list_value_length(lists).to_numpy() + 1)
    places = np.arange(ends[-1])
    is_first = np.zeros(len(places), bool)
    is_first[ends[:-1]] = True
    places[is_first] = np.arange(count)
    places[~is_first] = count + np.arange(len(rest))
    return pa.ListArray.from_arrays(pa.array(ends), pa.concat_arrays([first, rest]).take(pa.array(places)))
