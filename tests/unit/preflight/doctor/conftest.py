"""The configuration of a small run, to be planned or examined."""

import pytest

from flexray.config import parse_config
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
