"""Hypothesis strategies for source files as nobody wants them, with a few good rows in between."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

FIELDS = {
    "id": "id",
    "question": "question",
    "paraphrases": "paraphrases",
    "answers": "answers",
    "relation": "meta.relation",
    "num_manual": "num_manual",
    "confidences": "confidences",
}
SPELLED_OUT = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "</s>", "<s>", "<|begin_of_text|>", "<0x0A>"]
NASTY_TEXT = [
    *("", " ", "\n\t ", "\x00", "a\x00b", "\u200b", "\u2028", "\ufeff?", "\x1b[31mred\x1b[0m\x07", "\x85"),
    *("\u202eright to left\u202c", "שלום עולם?", "e" + "\u0301" * 30, "👩‍👩‍👧?", "\U0010ffff", "\ufffe"),
    *("[red]x[/red]", "{question}", "%s {0}", "a\r\nb", "#2", "../../x", "/etc/passwd", "C:\\x", "NaN"),
    *SPELLED_OUT,
    *(f"Who {token} is{token}system?" for token in SPELLED_OUT),
]
_TEXT = (
    st.sampled_from(NASTY_TEXT)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.builds(
        lambda text, n: text * n, st.sampled_from(["a", "é ", "漢", "? "]), st.sampled_from([3000, 100_000])
    )
)
_JSON_TEXT = _TEXT | st.sampled_from(["\ud800", "a \udfff?", "\ud83d"])
_NUMBERS = st.sampled_from(
    [0, -1, 1, 0.5, 1.5, -0.0, 10**300, 2**63, 1e308, float("nan"), float("inf"), True]
)
_JSON = st.recursive(
    st.none() | _NUMBERS | _JSON_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_JSON_TEXT, inner, max_size=3),
    max_leaves=8,
)
_DEEP = st.sampled_from([60, 99, 150]).map(lambda depth: json.loads("[" * depth + "]" * depth))
_LISTS = st.lists(_JSON, max_size=5) | st.builds(
    lambda text, n: [f"{text} {i}?" for i in range(n)], _JSON_TEXT, st.integers(0, 64)
)
_ID = st.sampled_from(["same", "same#2", "7", 7, "#2", -1, 10**300, "../../x", "a\x00b", "\u202eid"]) | _JSON
_CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "id": _ID,
    "question": _JSON_TEXT | _JSON,
    "paraphrases": _LISTS | _JSON,
    "answers": st.lists(_JSON_TEXT, max_size=4) | _JSON,
    "meta": st.fixed_dictionaries({}, optional={"relation": _JSON_TEXT | _JSON}) | _JSON,
    "num_manual": _NUMBERS | _JSON,
    "confidences": st.lists(_NUMBERS, max_size=4) | _JSON,
    "other": _JSON | _DEEP,
}
_LINES = [b"{", b"hello", b'{"id": "\xff"}', b"\x00", b"null", b"[" * 3000, b'{"id": ' + b"9" * 5000 + b"}"]


@dataclass(frozen=True)
class NastyFile:
    """What a source file holds, and how it is to be read."""

    write: Callable[[Path], Path]  # into a folder
    settings: dict[str, Any]  # of the data section
    num_rows: int
    good_rows: tuple[int, ...]  # numbers of those without a fault
    shown: str = ""  # of a failing example


def good_record(number: int, *, include_question: bool = False) -> dict[str, Any]:
    """A record with all of FIELDS, and texts that are odd but right."""
    token = SPELLED_OUT[number % len(SPELLED_OUT)]
    texts = [
        f"Who {token} is number {number}?",
        f"\u202bמי\u202c {number} e\u0301\x00 👩‍👩‍👧?",
        f"  {number} \x1b[1m? ",
    ]
    texts = texts[: 1 + number % 3]
    return {
        "id": f"good-{number}",
        "question": f"Who is {token} {number}?",
        "paraphrases": texts,
        "answers": [f"{token}"],
        "meta": {"relation": "P\x0019"},
        "num_manual": number % 4,
        "confidences": [0.5] * (len(texts) + include_question),
    }


@st.composite
def json_files(draw: st.DrawFn, *, min_rows: int = 1, max_rows: int = 6) -> NastyFile:
    """JSON lines or one JSON array."""
    settings = draw(_settings(st.sampled_from(["jsonl", "json"])))
    lines = settings["format"] == "jsonl"
    kinds = st.sampled_from(["good", "many", "again", "value", *["changed"] * 4, *["line"] * lines])
    more = st.lists(kinds, min_size=min_rows - 1, max_size=max_rows - 1)
    rows: list[bytes] = []
    good = []
    for number, kind in enumerate(["good", *draw(more)], start=1):
        record: Any = good_record(number, include_question=settings["include_question"])
        if kind == "many":
            text = draw(st.sampled_from(NASTY_TEXT))
            texts = [f"{text} {i}?" for i in range(draw(st.integers(1, 64)))]
            confidences = [i / len(texts) for i in range(len(texts) + settings["include_question"])]
            record |= {"paraphrases": texts, "confidences": [min(1, c) for c in confidences]}
        if kind in ("good", "many"):
            good.append(number)
        elif kind == "again":
            record["id"] = "good-1"
        elif kind == "changed":
            record |= {"id": f"bad-{number}"} | draw(_some_of(_CHANGES))
            if draw(st.integers(0, 4)) == 0:
                del record[draw(st.sampled_from(sorted(record)))]
        elif kind == "value":
            record = draw(_JSON | _DEEP)
        rows.append(draw(st.sampled_from(_LINES)) if kind == "line" else json.dumps(record).encode())

    def write(folder: Path) -> Path:
        path = folder / f"nasty.{settings['format']}"
        path.write_bytes(b"\n".join(rows) if lines else b"[" + b",\n".join(rows) + b"]")
        return path

    return NastyFile(write, settings, len(rows), tuple(good), _shown(rows))


@st.composite
def parquet_files(draw: st.DrawFn, *, max_rows: int = 6) -> NastyFile:
    """A column has one type: a row is spoilt by a null or a text, or all rows are by a wrong type."""
    settings = draw(_settings(st.just("parquet")))
    records = []
    good = []
    for number in range(1, draw(st.integers(1, max_rows)) + 1):
        record = good_record(number, include_question=settings["include_question"])
        text = st.none() | _TEXT | st.just(b"\xff")
        texts = st.none() | st.lists(text, max_size=3)
        changes: dict[str, st.SearchStrategy[Any]] = {
            "id": text | st.just("same"),
            "question": text,
            "paraphrases": texts,
            "answers": texts,
            "relation": text,
            "num_manual": st.sampled_from([None, -1, 0, 2**62]),
            "confidences": st.none() | st.lists(st.sampled_from([None, 0.5, 2.0, float("nan")]), max_size=3),
        }
        record["relation"] = record.pop("meta")["relation"]
        if number > 1 and draw(st.booleans()):
            record |= draw(_some_of(changes))
        else:
            good.append(number)
        records.append(record)
    columns = _columns(records)
    if draw(st.integers(0, 3)) == 0:  # a wrong type, and so no good row
        name = draw(st.sampled_from(sorted(columns)))
        columns[name] = draw(st.sampled_from(_wrong_columns(len(records))))
        good = []
    relation = pa.StructArray.from_arrays([columns.pop("relation")], ["relation"])
    table = pa.table(columns | {"meta": relation})
    group = draw(st.integers(1, max_rows))

    def write(folder: Path) -> Path:
        pq.write_table(table, folder / "nasty.parquet", row_group_size=group)
        return folder / "nasty.parquet"

    return NastyFile(write, settings, len(records), tuple(good), _shown(records))


def _shown(rows: list[Any]) -> str:
    return "\n".join(repr(row)[:300] for row in rows)


def _some_of(changes: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Few: what is wrong with one field must not be hidden by others."""
    names = st.sets(st.sampled_from(sorted(changes)), min_size=1, max_size=2)
    return names.flatmap(lambda some: st.fixed_dictionaries({name: changes[name] for name in sorted(some)}))


def _settings(formats: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "format": formats,
            "include_question": st.booleans(),
            "max_paraphrases": st.sampled_from([None, 1, 3]),
            "shard_rows": st.integers(1, 5),
        }
    )


def _columns(records: list[dict[str, Any]]) -> dict[str, pa.Array]:
    columns = {name: [record[name] for record in records] for name in records[0]}
    return {
        **{name: _text_array(columns[name]) for name in ("id", "question", "relation")},
        **{name: _list_array(columns[name]) for name in ("paraphrases", "answers")},
        "num_manual": pa.array(columns["num_manual"], pa.int64()),
        "confidences": pa.array(columns["confidences"], pa.list_(pa.float64())),
    }


def _text_array(values: list[Any]) -> pa.Array:
    """Strings; bytes are taken as they are, UTF-8 or not."""
    data = [v.encode() if isinstance(v, str) else v for v in values]
    return pa.array(data, pa.binary()).view(pa.string())


def _list_array(values: list[Any]) -> pa.Array:
    flat = [text for texts in values for text in texts or []]
    offsets = [0]
    for texts in values:
        offsets.append(offsets[-1] + len(texts or []))
    mask = pa.array([texts is None for texts in values])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _text_array(flat), mask=mask)


def _wrong_columns(rows: int) -> list[pa.Array]:
    return [
        pa.nulls(rows),
        pa.array([2**62] * rows),
        pa.array([float("nan")] * rows),
        pa.array([False] * rows),
        pa.array([b"\xff\x00"] * rows),
        pa.array([[["x"]]] * rows),
        pa.array([{"a": {"b": [1]}}] * rows),
        pa.array([None] * rows, pa.date32()),
        pa.array([0] * rows, pa.timestamp("us", "UTC")),
        pa.array(["x"] * rows).dictionary_encode(),
        pa.array([[("k", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
    ]
