"""The examples in docstrings print what they say."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import flexray

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(flexray.__path__, "flexray.")
    if not module.name.endswith("__main__")
)


def _has_examples(name):
    return ">>>" in importlib.util.find_spec(name).loader.get_source(name)


@pytest.mark.parametrize("name", [name for name in ["flexray", *MODULES] if _has_examples(name)])
def test_the_examples_of_a_module_print_what_they_say(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
