"""From a recipe to checked settings: the schema, merging of recipes, supported versions."""

from flexray.config.data import DataConfig
from flexray.config.evaluation import EvaluationConfig
from flexray.config.generation import GenerationConfig
from flexray.config.load import load_config, parse_config, parse_evaluation
from flexray.config.method import MethodConfig
from flexray.config.prompt import FewShot, PromptConfig
from flexray.config.schema import Backend, EngineConfig, LimitsConfig, ModelConfig, RayConfig, RunConfig

__all__ = [
    "Backend",
    "DataConfig",
    "EngineConfig",
    "EvaluationConfig",
    "FewShot",
    "GenerationConfig",
    "LimitsConfig",
    "MethodConfig",
    "ModelConfig",
    "PromptConfig",
    "RayConfig",
    "RunConfig",
    "load_config",
    "parse_config",
    "parse_evaluation",
]
