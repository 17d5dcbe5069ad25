"""The configuration of a small run, to be planned or examined."""

import pytest

from flexray.config import parse_config
from flexray.console.checks import make_checks
from flexray.preflight.doctor import RECIPE_CHECKS
from flexray.preflight.plan import start_plan
from tests.ray.jobs import make_tree, question, write


@pytest.fixture
def config_of(tmp_path, tiny_model):
    """Makes the configuration of a run over these records."""

    def make(records=None, *, methods=("attention",), model=None, **sections):
        data = write(tmp_path / "qa.jsonl", records or [question(i) for i in range(8)])
        tree = make_tree(tmp_path / "out", tiny_model, data, **sections)
        tree["model"] |= model or {}
        return parse_config(tree | {"methods": list(methods)}, source="test")

    return make


@pytest.fixture
def told():
    """What `doctor` finds about the parts of a recipe: those findings whose check has this name."""

    def told(config, name):
        return [
            finding for finding in make_checks(RECIPE_CHECKS, start_plan(config)) if finding.check == name
        ]

    return told
