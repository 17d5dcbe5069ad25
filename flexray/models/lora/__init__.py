"""LoRA adapters in PEFT's format: checked from their headers, then merged into a model that was loaded."""

from flexray.models.lora.merge import check_adapters, merge_adapters

__all__ = ["check_adapters", "merge_adapters"]
