"""Bulk question answering on Ray: answers fused over paraphrases inside attention.

>>> import flexray
>>> "LLM" in flexray.__all__
True

What stands in `__all__` is the public API; the rest may change from one version to the next. Names are
imported when they are first used: `import flexray` brings neither torch nor Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from flexray.api import RunTable, evaluate, read, run
    from flexray.config import RunConfig, load_config
    from flexray.data.adapters import DatasetAdapter, register_adapter
    from flexray.errors import ConfigError, DataError, ModelError, OutputError, UserError
    from flexray.evaluation.answer_metrics import register_metric
    from flexray.llm import LLM, Answer, Answers
    from flexray.methods import Method, register_method
    from flexray.processor import build_processor

_PLACES = {
    "LLM": "flexray.llm",
    "Answer": "flexray.llm",
    "Answers": "flexray.llm",
    "build_processor": "flexray.processor",
    "run": "flexray.api",
    "read": "flexray.api",
    "evaluate": "flexray.api",
    "RunTable": "flexray.api",
    "RunConfig": "flexray.config",
    "load_config": "flexray.config",
    "Method": "flexray.methods",
    "register_method": "flexray.methods",
    "DatasetAdapter": "flexray.data.adapters",
    "register_adapter": "flexray.data.adapters",
    "register_metric": "flexray.evaluation.answer_metrics",
    "UserError": "flexray.errors",
    "ConfigError": "flexray.errors",
    "DataError": "flexray.errors",
    "ModelError": "flexray.errors",
    "OutputError": "flexray.errors",
}

__all__ = [
    "LLM",
    "Answer",
    "Answers",
    "ConfigError",
    "DataError",
    "DatasetAdapter",
    "Method",
    "ModelError",
    "OutputError",
    "RunConfig",
    "RunTable",
    "UserError",
    "build_processor",
    "evaluate",
    "load_config",
    "read",
    "register_adapter",
    "register_method",
    "register_metric",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'flexray' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
