"""Bulk question answering on Ray: answers fused over paraphrases inside attention.

>>> import flexray
>>> "LLM" in flexray.__all__
True

The names in `__all__` are the public API; anything else may change in the next version. They are imported
when they are first used: `import flexray` imports neither torch nor Ray.
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
    from flexray.evaluation.metrics import register_metric
    from flexray.llm import LLM, Answer, Answers
    from flexray.methods import Method, register_method
    from flexray.processor import build_processor

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

_MODULES = {
    "api": ("RunTable", "evaluate", "read", "run"),
    "config": ("RunConfig", "load_config"),
    "data.adapters": ("DatasetAdapter", "register_adapter"),
    "errors": ("ConfigError", "DataError", "ModelError", "OutputError", "UserError"),
    "evaluation.metrics": ("register_metric",),
    "llm": ("LLM", "Answer", "Answers"),
    "methods": ("Method", "register_method"),
    "processor": ("build_processor",),
}
_PLACES = {name: f"flexray.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'flexray' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
