"""Checkpoints with quantised weights, as they are published; what is loaded is dequantised."""

from flexray.models.formats.config import find_format
from flexray.models.formats.format import (
    FLOATS,
    Format,
    Header,
    Region,
    StoredWeight,
    check_parts,
    extra_biases,
    stored_weights,
)

__all__ = [
    "FLOATS",
    "Format",
    "Header",
    "Region",
    "StoredWeight",
    "check_parts",
    "extra_biases",
    "find_format",
    "stored_weights",
]
