import json

import pytest

from flexray.config import parse_config
from tests.random_models import (  # noqa: F401  fixtures
    make_brief_model,
    make_engine,
    make_model,
    make_prompts,
)

RECORDS = [
    {"id": "a", "question": "Who?", "paraphrases": ["Which person?", "Who is it?"], "answers": ["Ada"]},
    {"id": "b", "question": "Where?", "paraphrases": ["At which place?"], "answers": ["Rome", "Roma"]},
    {"id": "c", "question": "When?", "paraphrases": ["At what time?"], "answers": []},
    {"id": "d", "question": "", "paraphrases": ["?"], "answers": ["no"]},
]


@pytest.fixture(scope="session")
def make_tree(tiny_model):
    """Writes four rows, of which the last is faulty, into a folder, and makes a configuration of them."""

    def make(folder):
        data = folder / "questions.jsonl"
        data.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
        full = {"layout": "full_prompt", "positions": "continuous"}
        return {
            "output": str(folder / "out"),
            "data": {"name": "qa", "files": [str(data)], "include_question": True, "shard_rows": 2},
            "model": {"path": str(tiny_model)},
            "methods": ["attention", full, "per_prompt", "max"],
            "generation": {"max_new_tokens": 4},
            "engine": {"backend": "sdpa"},
            "ray": {"address": "none:0"},  # a test that gets as far as Ray has gone too far
        }

    return make


@pytest.fixture
def tree(tmp_path, make_tree):
    return make_tree(tmp_path)


@pytest.fixture
def config(tree):
    return parse_config(tree, source="test")
