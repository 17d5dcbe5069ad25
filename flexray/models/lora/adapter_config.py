"""The adapter_config.json of a LoRA adapter: which modules it changes, and by how much.

Modules are matched as PEFT matches them, so that what was trained is what is merged. Keys that flexray does
not know are refused if they have a value: an adapter of another kind would be merged as if it were plain.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FiniteFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from flexray.errors import ConfigError, shown
from flexray.models.families import read_json

CONFIG = "adapter_config.json"
EMBEDDINGS, HEAD = "model.embed_tokens", "lm_head"
MERGE = (
    "If PEFT can merge it (merge_and_unload, then save_pretrained), give the merged checkpoint as model.path "
    "instead."
)
_IRRELEVANT = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",  # PEFT, too, sets it to false for layers such as these
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
}
"""Keys that change nothing about the merged weights: they are for training, or for what is refused."""


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as e:
        raise ValueError(f"is no regular expression ({e})") from e
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class AdapterConfig(BaseModel):
    """What matters of an adapter_config.json. Keys and their defaults are those of PEFT's `LoraConfig`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    peft_type: Literal["LORA"]
    r: PositiveInt = 8
    lora_alpha: FiniteFloat = 8
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[Pattern, PositiveInt] | None = None
    alpha_pattern: dict[Pattern, FiniteFloat] | None = None
    target_modules: list[str] | Pattern
    exclude_modules: list[str] | Pattern | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[Pattern] | Pattern | None = None
    modules_to_save: list[Pattern] | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    init_lora_weights: Literal[True, False, "gaussian", "eva", "orthogonal"] | None = True
    """Other ways to begin change the weights of the model, too."""
    ensure_weight_tying: bool = False

    @model_validator(mode="after")
    def _no_other_kind(self) -> AdapterConfig:
        for key, value in (self.model_extra or {}).items():
            if value and key not in _IRRELEVANT:
                raise ValueError(f"{key} is {shown(value, 80)}, and flexray merges no such adapters. {MERGE}")
        if isinstance(self.target_modules, str) and self.layers_to_transform not in (None, []):
            raise ValueError(
                f"layers_to_transform is {shown(self.layers_to_transform, 80)}, which goes with a list of "
                "target_modules only. Name the layers in the pattern of target_modules."
            )
        return self

    def is_target(self, module: str) -> bool:
        """Whether low-rank matrices are added to this linear or embedding layer."""
        excluded, targets = self.exclude_modules or (), self.target_modules
        if _fullmatch(excluded, module) if isinstance(excluded, str) else _ends_with_any(module, excluded):
            return False
        if any(re.match(rf"(^|.*\.){saved}($|\..*)", module) for saved in self.modules_to_save or ()):
            return False
        if isinstance(targets, list):
            return _ends_with_any(module, targets) and self._is_in_layers(module)
        if targets.lower() == "all-linear":
            return module not in (EMBEDDINGS, HEAD)
        return _fullmatch(targets, module)

    def is_saved(self, module: str) -> bool:
        """Whether this module was trained as a whole, by itself or as a part of another."""
        parts = module.split(".")
        outer = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
        return any(name.endswith(saved) for name in outer for saved in self.modules_to_save or ())

    def rank(self, module: str) -> int:
        """The rank of a target's matrices."""
        rank: int = _of_pattern(self.rank_pattern, module, self.r)
        return rank

    def scaling(self, module: str) -> float:
        """What the product of a target's matrices is multiplied by."""
        alpha: float = _of_pattern(self.alpha_pattern, module, self.lora_alpha)
        rank = self.rank(module)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def _is_in_layers(self, module: str) -> bool:
        layers, patterns = self.layers_to_transform, self.layers_pattern or ()
        if layers is None or layers == []:
            return True
        names = [patterns] if isinstance(patterns, str) else patterns or [r"[^.]*"]
        found = (re.match(rf"(?:^|.*?\.){name}\.(?P<layer>\d+)\.", module) for name in names)
        index = next((int(match["layer"]) for match in found if match), None)
        return index is not None and index in ([layers] if isinstance(layers, int) else layers)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read and check the adapter_config.json of a folder.

    Raises:
        ModelError: it is missing or no JSON object. ConfigError: a key has a value of another type, or one
            that flexray does not merge.
    """
    tree = read_json(folder / CONFIG)
    try:
        return AdapterConfig.model_validate(tree)
    except ValidationError as e:
        faults = e.errors(include_url=False, include_context=False)
    fault = next((fault for fault in faults if fault["type"] == "value_error"), faults[0])
    raise ConfigError(f"model.lora: {folder / CONFIG}: {_describe(fault, tree)}")


def _describe(fault: Any, tree: dict[str, Any]) -> str:
    problem = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:  # of several keys; the message names them
        return problem
    key = str(fault["loc"][0])
    if key not in tree or (key == "target_modules" and tree[key] is None):
        return f"{key} is missing. Copy the adapter again, or name its modules there."
    advice = "Correct it, or copy the adapter again."
    if key == "peft_type":
        advice = f"flexray merges adapters of LoRA only. {MERGE}"
    elif key == "init_lora_weights":
        advice = (
            "Such a start changes the model's weights, too. Save the adapter as a plain one: save_pretrained "
            f"with path_initial_model_for_weight_conversion. {MERGE}"
        )
    return f"{key} is {shown(tree[key], 80)}: {problem}. {advice}"


def _of_pattern(values: dict[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that the end of a module's name matches."""
    return next((v for key, v in (values or {}).items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _ends_with_any(module: str, names: Any) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _fullmatch(pattern: str, module: str) -> bool:
    return re.fullmatch(pattern, module) is not None
