"""A model is known by what determines its answers."""

import shutil
from pathlib import Path

import pytest

from flexray.runs.fingerprint import checkpoint_digest


@pytest.mark.parametrize(
    "name",
    [
        "chat_template.jinja",
        "additional_chat_templates/default.jinja",
        "tokenizer_config.json",
        "tokenizer.json",
        "generation_config.json",
        "tokenizer_of_mine.py",
    ],
)
def test_what_determines_the_prompts_is_part_of_the_models_digest(tiny_model, tmp_path, name):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    before = checkpoint_digest(folder)
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text((file.read_text() if file.exists() else "") + " ")
    assert checkpoint_digest(folder) != before
    (folder / "README.md").write_text("no part of it")
    assert checkpoint_digest(folder) == checkpoint_digest(shutil.copytree(folder, folder.parent / "copy"))
