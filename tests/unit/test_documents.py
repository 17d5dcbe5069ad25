"""What the documents name is there."""

import ast
import re

import pytest

from tests.conftest import PROJECT

NAMED = re.compile(r"`((?:unit|ray|gpu|chaos)/[\w/]+\.py)`|`(test_\w+)`")


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
