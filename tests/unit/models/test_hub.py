"""A model by its name on the hub (one on loopback): found in the cache, and brought only if asked for."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants, scan_cache_dir

from flexray import LLM
from flexray.errors import ConfigError, ModelError
from flexray.models.checkpoint import check_checkpoint, load_model, load_tokenizer
from flexray.models.hub import download_model, model_folder, pin_model
from flexray.models.weights import INDEX, WEIGHTS
from flexray.runs.fingerprint import checkpoint_digest, fingerprint_parts
from tests.hub import FakeHub

NAME = "someone/tiny-llama"
REPO = f"models/{NAME}"


def test_only_what_a_model_needs_is_downloaded_and_the_commit_is_the_librarys(
    hub: FakeHub, tiny_model: Path
) -> None:
    commit = hub.push(
        REPO,
        tiny_model,
        pytorch_model__bin=b"pickle",
        modeling_x__py=b"raise SystemExit",
        README__md=b"card",
        consolidated__safetensors=b"the same once more",
    )
    download_model(NAME)
    assert sorted(hub.served) == sorted(path.name for path in tiny_model.iterdir())
    (repo,) = scan_cache_dir(constants.HF_HUB_CACHE).repos
    (revision,) = repo.revisions
    assert (repo.repo_id, revision.commit_hash, revision.refs) == (NAME, commit, {"main"})
    assert pin_model(NAME) == pin_model(f"{NAME}@main") == pin_model(f"{NAME}@{commit}") == f"{NAME}@{commit}"
    assert model_folder(NAME) == revision.snapshot_path
    hub.served.clear()
    download_model(NAME)
    assert hub.served == []


def test_a_model_in_the_cache_is_loaded_without_asking_the_hub(hub: FakeHub, tiny_model: Path) -> None:
    hub.push(REPO, tiny_model)
    download_model(NAME)
    hub.asked.clear()
    hub.served.clear()
    named, tokenizer = load_model(NAME, device="cpu")
    folder, _ = load_model(tiny_model, device="cpu")
    theirs = folder.state_dict()
    assert all(theirs[key].equal(value) for key, value in named.state_dict().items())
    assert len(tokenizer) == len(load_tokenizer(NAME))
    assert (hub.asked, hub.served) == ([], [])


@pytest.mark.parametrize("revision", ["main", "v2", "0" * 40])
def test_what_the_cache_lacks_is_an_error_with_the_command_that_brings_it(
    hub: FakeHub, tiny_model: Path, revision: str
) -> None:
    hub.push(REPO, tiny_model)
    if revision != "main":
        download_model(NAME)
    hub.asked.clear()
    for look in (check_checkpoint, load_tokenizer, load_model, pin_model):
        with pytest.raises(ConfigError) as e:
            look(f"{NAME}@{revision}")
        assert f"hf download {NAME} --revision {revision} (" in str(e.value)
        assert f"it is not in this machine's cache, {constants.HF_HUB_CACHE}." in str(e.value)
    assert hub.asked == []


def test_a_download_that_was_cut_short_is_not_taken_for_the_model(hub: FakeHub, tiny_model: Path) -> None:
    hub.push(REPO, tiny_model)
    download_model(NAME)
    (model_folder(NAME) / WEIGHTS).unlink()
    with pytest.raises(ConfigError, match="it is not complete in this machine's cache"):
        check_checkpoint(NAME)
    download_model(NAME)
    check_checkpoint(NAME)


def test_weights_in_several_files_are_those_of_the_index(
    hub: FakeHub, tiny_model: Path, tmp_path: Path
) -> None:
    model, tokenizer = load_model(tiny_model, device="cpu")
    model.save_pretrained(tmp_path / "m", max_shard_size="50KB")
    tokenizer.save_pretrained(tmp_path / "m")
    parts = {path.name for path in (tmp_path / "m").glob("model-*.safetensors")}
    assert len(parts) > 1
    hub.push(REPO, tmp_path / "m", other__safetensors=b"of somebody else")
    download_model(NAME)
    assert {name for name in hub.served if name.endswith(".safetensors")} == parts
    assert INDEX in hub.served
    check_checkpoint(NAME)
    (model_folder(NAME) / min(parts)).unlink()
    with pytest.raises(ConfigError, match="is not complete"):
        pin_model(NAME)


def test_a_folder_of_that_name_wins(
    hub: FakeHub, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(REPO, tiny_model)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, tmp_path / NAME)
    download_model(NAME)
    assert pin_model(NAME) == NAME
    assert model_folder(NAME) == Path(NAME)
    check_checkpoint(NAME)
    assert (hub.asked, hub.served) == ([], [])


@pytest.mark.parametrize(
    "path", ["tiny", "/no/such/folder", "a/b/c", "./a/b", "a/b@", "a/b@../../x", "a/b@x y"]
)
def test_what_is_neither_a_folder_nor_a_name_is_refused_as_that(hub: FakeHub, path: str) -> None:
    with pytest.raises(
        ModelError, match=r"no such model folder\. Give .*, or the name of a model of the Hugging"
    ):
        check_checkpoint(path)
    download_model(path)
    assert hub.asked == []


def test_the_hub_says_no(hub: FakeHub, tiny_model: Path, tmp_path: Path) -> None:
    hub.push(REPO, tiny_model)
    (tmp_path / "config.json").write_text("{}")
    hub.push("models/someone/pickled", tmp_path, pytorch_model__bin=b"pickle")
    for name, said in (
        (f"{NAME}@v2", f"the model {NAME} has no revision 'v2'"),
        ("someone/else", "there is no model someone/else, or it is private"),
        ("someone/pickled", f"has neither {WEIGHTS} nor {INDEX}"),
    ):
        with pytest.raises(ConfigError, match=said):
            download_model(name)
    assert hub.served == []


def test_a_hub_that_is_not_reached_is_an_error_even_if_an_older_commit_is_in_the_cache(
    hub: FakeHub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(REPO, tiny_model)
    download_model(NAME)
    with monkeypatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(ConfigError, match=r"cannot be downloaded from http://127\.0\.0\.1:9: "):
            download_model(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set, which forbids the download"):
        download_model(NAME)
    check_checkpoint(NAME)


def test_code_of_a_repository_is_not_run(hub: FakeHub, tiny_model: Path) -> None:
    hub.push(REPO, tiny_model)
    download_model(NAME)
    with pytest.raises(
        ConfigError, match=r"model\.trust_remote_code: code of someone/tiny-llama@main is not run"
    ):
        load_tokenizer(NAME, trust_remote_code=True)


def test_a_model_has_the_same_digest_by_name_and_by_folder_whatever_else_the_cache_has(
    hub: FakeHub, tiny_model: Path, config_by_path
) -> None:
    hub.push(REPO, tiny_model, LICENSE__txt=b"do", tokenizer__py=b"1/0")
    download_model(NAME)

    def digest(path: Path | str) -> str:
        return fingerprint_parts(config_by_path(path))["model"]["digest"]

    assert digest(NAME) == digest(tiny_model) == checkpoint_digest(tiny_model)
    (model_folder(NAME) / "LICENSE.txt").write_text("brought by somebody else")
    assert digest(NAME) == digest(tiny_model)
    changed = model_folder(NAME) / "generation_config.json"
    changed.unlink()  # it was a link into the cache
    changed.write_text('{"eos_token_id": 3}')
    assert digest(NAME) != digest(tiny_model)


@pytest.fixture
def config_by_path(tmp_path: Path):
    from tests.ray.jobs import make_config, question, write

    data = write(tmp_path / "qa.jsonl", [question(0)])

    def make(path):
        return make_config(tmp_path / "out", path, data)

    return make


def test_llm_takes_a_name_and_downloads_only_if_told(hub: FakeHub, tiny_model: Path) -> None:
    hub.push(REPO, tiny_model)
    with pytest.raises(ConfigError, match=f"hf download {NAME} --revision main"):
        LLM(NAME, device="cpu", backend="sdpa")
    named = LLM(f"{NAME}@main", device="cpu", backend="sdpa", download=True)
    rows = [{"question": "What is the capital of Peru?", "paraphrases": ["Peru's capital?"]}]
    (answer,) = named.answer(rows, max_new_tokens=4)
    (same,) = LLM(tiny_model, device="cpu", backend="sdpa").answer(rows, max_new_tokens=4)
    assert (answer.error, answer.token_ids) == ("", same.token_ids)
    assert answer.token_ids
