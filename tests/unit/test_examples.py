"""The Python examples of the documents run as they are written."""

import re

import pytest

from tests.conftest import PROJECT

PAGES = ["docs/api.md", "docs/extending.md"]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (PROJECT / page).read_text(), flags=re.DOTALL)


EXAMPLES = [(page, number) for page in PAGES for number in range(len(blocks(page)))]


def test_each_page_has_its_examples():
    assert {page: len(blocks(page)) for page in PAGES} == {"docs/api.md": 1, "docs/extending.md": 3}


@pytest.mark.parametrize(("page", "number"), EXAMPLES)
def test_an_example_runs_as_it_is_written(page, number, smollm2, monkeypatch):
    from flexray.data.adapters import ADAPTERS
    from flexray.evaluation.metrics import _REGISTERED as METRICS
    from flexray.methods import METHODS

    # what an example registers is gone afterwards
    before = [dict(registry) for registry in (ADAPTERS, METRICS, METHODS)]
    monkeypatch.chdir(PROJECT)
    try:
        exec(compile(blocks(page)[number], f"{page}, example {number + 1}", "exec"), {})
    finally:
        for registry, old in zip((ADAPTERS, METRICS, METHODS), before, strict=True):
            registry.clear()
            registry.update(old)
