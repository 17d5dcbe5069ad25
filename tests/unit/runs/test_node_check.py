"""What a node may lack, or have otherwise, is told by its name; tests/hosts has real nodes."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from flexray.config import RunConfig, parse_config
from flexray.errors import ConfigError, ModelError, OutputError
from flexray.runs.node_check import difference, look
from tests.lora_adapters import save_adapter
from tests.ray.jobs import make_tree, question, write
from tests.runs import planned


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> RunConfig:
    """A planned run with a model and an adapter that may be changed."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    adapter = save_adapter(tmp_path / "adapter", model)
    data = write(tmp_path / "questions.jsonl", [question(0)])
    tree = make_tree(tmp_path / "out", model, data)
    tree["model"]["lora"] = [str(adapter)]
    return planned(parse_config(tree, source="test")).config


def test_who_sees_the_same_has_no_fault(config: RunConfig) -> None:
    assert difference(config, look(config), look(config)) is None


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("model", "tokenizer.json", "not the driver's model: tokenizer.json differs. Copy the model"),
        ("adapter", "adapter_config.json", "not the driver's adapter. Copy it there again"),
    ],
)
def test_a_changed_file_is_told(config: RunConfig, tmp_path: Path, name: str, change: str, said: str) -> None:
    here = look(config)
    with (tmp_path / name / change).open("a") as file:
        file.write("\n")
    fault = difference(config, here, look(config))
    assert isinstance(fault, ModelError)
    assert str(tmp_path / name) in str(fault)
    assert said in str(fault)


def test_files_that_are_missing_or_extra_are_told(config: RunConfig, tmp_path: Path) -> None:
    here = look(config)
    (tmp_path / "model" / "generation_config.json").unlink(missing_ok=True)
    (tmp_path / "model" / "config.json").rename(tmp_path / "model" / "old.json")
    fault = difference(config, here, look(config))
    assert "config.json is missing" in str(fault)
    assert "old.json is extra" in str(fault)


@pytest.mark.parametrize(("name", "key"), [("model", "model.path"), ("adapter", "model.lora")])
def test_a_folder_that_is_missing_is_told(config: RunConfig, tmp_path: Path, name: str, key: str) -> None:
    shutil.rmtree(tmp_path / name)
    with pytest.raises(ModelError, match=f"{key}: {tmp_path / name}: no such folder there"):
        look(config)


def test_another_plug_in_is_told_by_its_name(config: RunConfig, tmp_path: Path) -> None:
    file = tmp_path / "metrics.py"
    file.write_text("")
    config = config.model_copy(update={"plugins": (str(file),)})
    here = look(config)
    file.write_text("# changed")
    fault = difference(config, here, look(config))
    assert isinstance(fault, ConfigError)
    assert f"plugins: {file}: not the driver's file" in str(fault)


def test_an_output_that_is_not_shared_is_told(config: RunConfig, tmp_path: Path) -> None:
    here = look(config)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is not to be seen there"):
        look(config)
    (tmp_path / "elsewhere").rename(tmp_path / "out")
    fault = difference(config, here, dataclasses.replace(here, fingerprint="0" * 64))
    assert isinstance(fault, OutputError)
    assert f"output: {tmp_path / 'out'}: not the driver's folder" in str(fault)


def test_another_flexray_is_told_by_its_digest(config: RunConfig) -> None:
    here = look(config)
    fault = difference(config, here, dataclasses.replace(here, source_sha256="0" * 64))
    assert isinstance(fault, ConfigError)
    assert f"000000000000, not {here.source_sha256[:12]}. Install the same one" in str(fault)
