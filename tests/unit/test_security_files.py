"""A hostile Parquet or Arrow file runs nothing, though Ray's extension types, which unpickle, are at hand."""

import contextlib
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexray.config import parse_config
from flexray.data import scan, to_questions
from flexray.errors import DataError

FORMATS = ["parquet", "arrow"]
GOOD = {"id": pa.array(["a"]), "paraphrases": pa.array([["x"]]), "answers": pa.array([["y"]])}
HIDDEN_IN = ["column", "struct", "list", "map", "union", "runs of structs", "dictionary of structs"]


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._trace), "w")


@pytest.fixture(autouse=True)
def _rays_types_are_registered():
    """In this process, as in each worker."""
    import ray.data  # noqa: F401


@pytest.fixture
def trace(tmp_path) -> Path:
    """A file that is there once something hostile has run."""
    return tmp_path / "trace"


def read_all(path: Path, columns: list[tuple[pa.Field, pa.Array]], **data: Any) -> list[Any]:
    """Write the columns beside those of a good row, and read the file as a run does."""
    columns = [*columns, *((pa.field(name, array.type), array) for name, array in GOOD.items())]
    table = pa.Table.from_arrays([a for _, a in columns], schema=pa.schema([f for f, _ in columns]))
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    tree = {"output": "o", "model": {"path": "m"}, "data": {"name": "d", "files": str(path), **data}}
    config = parse_config(tree, source="test").data
    return to_questions(scan(config), dataset=config.name, split=config.split)


def extension(name: str, storage: pa.DataType, metadata: bytes = b"", called: str = "question") -> pa.Field:
    return pa.field(
        called, storage, metadata={"ARROW:extension:name": name, "ARROW:extension:metadata": metadata}
    )


def hide(pickled: pa.Array, place: str) -> tuple[pa.Field, pa.Array]:
    """The column `question` that holds pickled objects of Ray's extension type somewhere."""

    def named(called: str) -> pa.Field:
        return extension("ray.data.arrow_pickled_object", pickled.type, called=called)

    struct = pa.StructArray.from_arrays([pickled], fields=[named("text")])
    zero, ends = pa.array([0], pa.int8()), pa.array([0, 1], pa.int32())
    arrays = {
        "column": lambda: pickled.cast(named("question").type),
        "struct": lambda: struct,
        "list": lambda: pa.array([pickled.to_pylist()], pa.list_(pickled.type)).cast(pa.list_(named("item"))),
        "map": lambda: pa.MapArray.from_arrays(ends, pa.array(["k"]), pickled).cast(
            pa.map_(pa.string(), named("value"))
        ),
        "union": lambda: pa.UnionArray.from_sparse(zero, [struct], ["a"]),
        "runs of structs": lambda: pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), struct),
        "dictionary of structs": lambda: pa.DictionaryArray.from_arrays(zero, struct),
    }
    array = arrays[place]()
    return (named("question") if place == "column" else pa.field("question", array.type)), array


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("place", HIDDEN_IN)
def test_pickled_objects_of_rays_extension_type_are_refused_wherever_they_hide(
    tmp_path, trace, format_, place
):
    column = hide(pa.array([pickle.dumps(Payload(trace))], pa.large_binary()), place)
    path = tmp_path / f"hostile.{format_}"
    refused = pytest.raises(DataError, match=r"hostile.*question.*ray\.data\.arrow_pickled_object")
    with contextlib.suppress(pa.ArrowNotImplementedError), refused:  # Parquet has no unions, for one
        read_all(path, [column])
    assert not trace.exists()


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("order", [1, -1])
def test_a_column_that_is_there_twice_is_refused(tmp_path, trace, format_, order):
    hostile = hide(pa.array([pickle.dumps(Payload(trace))], pa.large_binary()), "column")
    plain = (pa.field("question", pa.string()), pa.array(["What?"]))
    with pytest.raises(DataError, match=r"hostile.*question"):
        read_all(tmp_path / f"hostile.{format_}", [hostile, plain][::order])
    assert not trace.exists()


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    "name",
    [
        "ray.data.arrow_tensor",
        "ray.data.arrow_tensor_v2",
        "ray.data.arrow_variable_shaped_tensor",
        "arrow.py_extension_type",
        "pandas.period",
        "datasets.features.features.Array2DExtensionType",
    ],
)
def test_pickled_metadata_of_an_extension_type_is_not_unpickled(tmp_path, trace, format_, name):
    field = extension(name, pa.list_(pa.int64()), pickle.dumps(Payload(trace)))
    with contextlib.suppress(DataError):  # it is known to this process, or else its storage is read
        (question,) = read_all(tmp_path / f"hostile.{format_}", [(field, pa.array([[1]]))])
        assert "field 'question'" in question.error
    assert not trace.exists()


def test_the_payload_would_show(trace):
    """What Ray's type does by itself."""
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType

    pickled = pa.array([pickle.dumps(Payload(trace))], pa.large_binary())
    pa.ExtensionArray.from_storage(ArrowPythonObjectType(), pickled).to_pylist()
    assert trace.exists()
