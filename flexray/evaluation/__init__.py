"""Scoring: is a prediction right, and how often is each method right."""

from flexray.evaluation.accuracy import MethodAccuracy, accuracy_by_method, wilson_interval
from flexray.evaluation.match import exact_match, normalize_answer

__all__ = ["MethodAccuracy", "accuracy_by_method", "exact_match", "normalize_answer", "wilson_interval"]
