"""How tests are shared out among processes; the models that most of them use."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SMOLLM2 = PROJECT / "models" / "smollm2-135m"
DATA = Path(os.environ.get("FLEXRAY_DATA", PROJECT / "datasets"))
"""Where real data sets are, if there are any: webqa/ and pararel/."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file at a time in each process, but all that start a Ray in one: two at once share the cores, and
    each takes several times as long."""
    from xdist.scheduler import LoadScopeScheduling

    class OneRayAtATime(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return "tests/ray" if file.startswith(("tests/ray/", "tests/hosts/")) else file

    return OneRayAtATime(config, log)


@pytest.fixture(scope="session")
def smollm2():
    """The embedded default model."""
    if not (SMOLLM2 / "tokenizer.json").is_file():
        pytest.skip(f"{SMOLLM2} is missing: run `make setup` first")
    return SMOLLM2


@pytest.fixture(scope="session")
def tokenizer(smollm2):
    from flexray.models.checkpoint import load_tokenizer  # transformers: not for tests that need none

    return load_tokenizer(smollm2)


@pytest.fixture(scope="session")
def small_tokenizer(tokenizer):
    """That of the tiny model: the first tokens of the default model's."""
    from tests.tiny_model import cut_tokenizer

    return cut_tokenizer(tokenizer)


@pytest.fixture(scope="session")
def save_tiny_model(small_tokenizer):
    """Saves a tiny model of the given seed and context length into a folder."""
    from tests.tiny_model import save_tiny_model  # torch: not for tests that need none

    def save(folder: Path, **changes: int) -> Path:
        return save_tiny_model(folder, small_tokenizer, **changes)

    return save


@pytest.fixture(scope="session")
def tiny_model(save_tiny_model, tmp_path_factory):
    """A model folder, shared by the whole session: do not change it."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """An empty Hugging Face hub on loopback, and an empty cache."""
    from tests.hub import fake_hub, use_hub  # datasets: not for tests that need none

    with fake_hub() as hub:
        use_hub(hub, tmp_path_factory.mktemp("hf"), monkeypatch)
        yield hub
