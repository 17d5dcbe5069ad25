import pytest
import torch

from tests.random_models import (  # noqa: F401  fixtures
    make_brief_model,
    make_engine,
    make_model,
    make_prompts,
)


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/gpu" in str(item.path):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
