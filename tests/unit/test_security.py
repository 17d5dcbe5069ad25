"""Data and recipes are read, never run; nothing in them becomes a path, or a command to the terminal."""

import ast
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

import flexray
from flexray.cli import app
from flexray.config import DataConfig, load_config, parse_config
from flexray.data import scan, to_questions
from flexray.errors import ConfigError, DataError, RowFault
from flexray.report.summary import print_summary
from flexray.report.work import WorkSummary

SOURCES = Path(flexray.__file__).parent
RUNS_CODE = {
    *("eval", "exec", "compile", "__import__", "importlib.import_module", "pydoc.locate", "os.system"),
    *("runpy.run_path", "runpy.run_module", "torch.load", "torch.hub.load", "pandas.read_pickle"),
    *("numpy.load", "numpy.lib.npyio.load", "yaml.load", "yaml.load_all", "yaml.full_load"),
    *("yaml.unsafe_load", "yaml.full_load_all", "yaml.unsafe_load_all"),
}
PICKLES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "_pickle", "subprocess"}
PICKLES.add("multiprocessing")  # its connections unpickle what they receive
ALLOWED = {
    # over a socket pair between a process and those that it starts, this Python with a module of flexray's
    **{("engine/ranks.py", f"subprocess.{name}"): n for name, n in (("Popen", 3), ("DEVNULL", 1))},
    **{
        ("engine/ranks.py", f"multiprocessing.connection.{name}"): n
        for name, n in (("Connection", 2), ("Pipe", 1), ("wait", 1))
    },
    ("engine/rank_main.py", "multiprocessing.connection.Connection"): 2,
    ("engine/rank_main.py", "pickle.loads"): 1,
    # a pipe to a process that renders chat templates
    ("prompts/rendering.py", "multiprocessing.connection.Connection"): 1,
    ("prompts/rendering.py", "multiprocessing.get_context"): 1,
    # between this process and the workers of its cluster, which run its code anyway
    ("pipeline/ray_map.py", "pickle.dumps"): 2,
    ("pipeline/ray_map.py", "pickle.loads"): 2,
    # whether an error can travel so
    ("engine/ranks.py", "pickle.dumps"): 1,
    ("engine/ranks.py", "pickle.loads"): 1,
    # the error that a test wants, by its name in an environment variable
    ("config/fault_injection.py", "pydoc.locate"): 1,
    # programs that the doctor starts: nvidia-smi, the compiler, this Python with a module of flexray's
    **{
        (f"preflight/doctor/{file}_checks.py", f"subprocess.{name}"): 1
        for file in ("machine", "process")
        for name in ("run", "TimeoutExpired")
    },
    # git, asked for the commit of a checkout
    ("runs/fingerprint.py", "subprocess.run"): 1,
    ("runs/fingerprint.py", "subprocess.SubprocessError"): 1,
    # flexray's own public names
    ("__init__.py", "importlib.import_module"): 1,
    # plug-ins, which the user's recipe names
    ("config/plugins.py", "importlib.import_module"): 1,
}
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"  # sets a terminal's title, clears it, turns the text around


def calls(tree: ast.AST) -> Iterator[str]:
    """Dotted names, through the file's imports, of all that is used of modules, and of builtins."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            parts: list[str] = []
            root: ast.AST = node
            while isinstance(root, ast.Attribute):
                parts, root = [root.attr, *parts], root.value
            if isinstance(root, ast.Name) and (root.id in names or not parts):
                yield ".".join([names.get(root.id, root.id), *parts])


def test_nothing_unpickles_or_runs_code_but_the_listed_places():
    found: dict[tuple[str, str], int] = {}
    for path in SOURCES.rglob("*.py"):
        for name in calls(ast.parse(path.read_text(encoding="utf-8"))):
            if name in RUNS_CODE or name.partition(".")[0] in PICKLES:
                key = (path.relative_to(SOURCES).as_posix(), name)
                found[key] = found.get(key, 0) + 1
    assert found == ALLOWED


def test_the_search_sees_through_aliases():
    lines = ["import numpy as np", "from torch import load as l", "import pickle", "f = pickle.loads"]
    lines += ["np.load('x')", "l('y')", "eval('z')"]
    assert {"numpy.load", "torch.load", "eval", "pickle.loads"} <= set(calls(ast.parse("\n".join(lines))))


def config_of(path: Path, **data: Any) -> DataConfig:
    tree = {"output": "o", "model": {"path": "m"}, "data": {"name": "d", "files": str(path), **data}}
    return parse_config(tree, source="test").data


def read_all(config: DataConfig) -> list[Any]:
    return to_questions(scan(config), dataset=config.name, split=config.split)


@pytest.mark.parametrize(
    "tag", ["python/object/apply:os.system", "python/name:os.system", "python/module:os"]
)
def test_yaml_that_names_python_objects_is_refused(tmp_path, tag):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"output: !!{tag} ['touch {tmp_path}/trace']\n")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load_config(str(path))
    path.write_text("output: x\n")
    with pytest.raises(ConfigError, match="no YAML"):
        load_config(str(path), [f"output=!!{tag} ['touch {tmp_path}/trace']"])
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "name", ["../x", "/etc", "a/b", "a\\b", "C:x", "a\x00b", "a b", "a\n", "", "..", ".hidden", "-x"]
)
def test_a_name_that_would_be_an_odd_file_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"data\.name"):
        config_of(tmp_path / "a.jsonl", name=name)


@pytest.mark.parametrize("name", ["../x", "a/b", "a\x00b", ""])
def test_a_split_that_would_be_an_odd_file_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"data\.split"):
        config_of(tmp_path / "a.jsonl", split=name)


@pytest.mark.parametrize("name", ["../../secret.parquet", "a/../../../secret.parquet"])
def test_the_index_of_a_saved_data_set_names_no_file_outside_its_folder(tmp_path, name):
    record = {"id": "a", "question": "?", "paraphrases": ["?"], "answers": ["x"]}
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "secret.parquet")
    folder = tmp_path / "saved" / "test"
    (folder / "a").mkdir(parents=True)
    files = [{"filename": name}]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    with pytest.raises(DataError, match=r"state\.json"):
        read_all(config_of(folder))


def test_half_a_surrogate_pair_in_a_recipe_is_a_fault_of_the_recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        'output: o\ndata: {name: d, files: x}\nmodel: {path: m}\nprompt: {instruction: "\\ud800"}\n'
    )
    with pytest.raises(ConfigError, match=r"(?s)recipe\.yaml.*: .*surrogate"):
        load_config(str(path))


def test_a_row_fault_shows_values_and_fields_without_control_characters():
    fault = RowFault("a.jsonl", 1, f"field{HOSTILE}", [f"value{HOSTILE}\ud800"], "it is wrong", "Correct it.")
    assert str(fault).isprintable()
    assert "\\x1b]0;owned\\x07" in str(fault)


def test_an_error_of_the_command_line_shows_no_control_characters(tmp_path):
    path = tmp_path / f"{HOSTILE}.yaml"
    path.write_text("[]")
    result = CliRunner().invoke(app, ["run", "--config", str(path)])
    assert result.exit_code == 2
    assert "a mapping of sections is expected" in result.output
    assert result.output.replace("\n", "").isprintable(), repr(result.output)


def test_the_summary_shows_no_control_characters_and_reads_no_markup():
    name = f"[red]x[/red]{HOSTILE}"
    counted = Counter({name: 1})
    work = WorkSummary(rows=1, backend_used=counted, fallback_reason=counted)
    out = io.StringIO()
    console = Console(file=out, width=400, force_terminal=True, color_system=None)
    print_summary([work], methods=[name], console=console)
    assert out.getvalue().count("[red]x[/red]") == 3
    assert "\x1b]" not in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert "\u202e" not in out.getvalue()
