"""What the documents name is there."""

import ast
import re
import subprocess
import sys

import pytest
import typer
import yaml

from flexray.cli import app
from flexray.config.reference import reference
from tests.conftest import PROJECT

NAMED = re.compile(r"`((?:unit|ray|hosts|gpu|chaos)/[\w/]+\.py)`|`(test_\w+)`")


def functions(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_proves_a_promise_is_there():
    file, found = None, 0
    for name, function in NAMED.findall((PROJECT / "docs" / "reliability.md").read_text()):
        if name:
            file = PROJECT / "tests" / name
            assert file.is_file(), name
        else:
            assert function in functions(file), f"{file.name}: {function}"
            found += 1
    assert found > 40


DOCUMENTS = sorted(
    path.relative_to(PROJECT).as_posix()
    for pattern in ("*.md", "docs/*.md", "cluster/*.md")
    for path in PROJECT.glob(pattern)
)


@pytest.fixture(params=DOCUMENTS)
def document(request):
    return PROJECT / request.param


def test_every_file_that_a_document_links_to_is_there(document):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


def test_every_module_that_a_document_names_with_its_folder_is_there(document):
    names = re.findall(r"`(\w+/[\w/]+\.py)`", document.read_text())
    roots = (PROJECT, PROJECT / "flexray", PROJECT / "tests")
    assert [name for name in names if not any((root / name).is_file() for root in roots)] == []


@pytest.mark.parametrize("room", ["engine", "masks", "models"])
def test_the_engines_document_tells_of_every_file_of_its_rooms(room):
    text = (PROJECT / "docs" / "engine.md").read_text()
    files = [path.name for path in (PROJECT / "flexray" / room).glob("*.py") if path.name != "__init__.py"]
    assert len(files) > 3
    assert [name for name in files if f"`{name}`" not in text] == []


def test_the_keys_of_a_recipe_are_those_of_the_code():
    now = (PROJECT / "docs" / "config.md").read_text()
    assert now == reference(), "run `python -m flexray.config.reference > docs/config.md`"


def test_the_site_has_every_page(tmp_path):
    tree = yaml.safe_load((PROJECT / "mkdocs.yml").read_text())
    pages = [page for part in tree["nav"] for value in part.values() for page in _pages(value)]
    assert sorted(pages) == sorted(path.name for path in (PROJECT / "docs").glob("*.md"))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "tutorial.html").is_file()


def _pages(value):
    return [value] if isinstance(value, str) else [page for part in value for page in part.values()]


COMMAND = re.compile(
    r"(?:\bbin/flexray|`flexray|^    flexray) ([a-z][a-z-]*)((?:[^`\n|\\]|\\\n)*)", re.MULTILINE
)


def test_the_commands_that_a_document_gives_are_there_with_their_options(document):
    commands = typer.main.get_command(app).commands
    for name, rest in COMMAND.findall(document.read_text()):
        assert name in commands, name
        submitted = re.findall(r"--job[ =]([a-z][a-z-]*)", rest) or ["run"]
        known = {
            option
            for command in (name, *(submitted if name == "submit" else ()))
            for parameter in commands[command].params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        options = re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", rest.split("#")[0])
        assert set(options) <= known | {"--help"}, f"flexray {name}: {options}"
