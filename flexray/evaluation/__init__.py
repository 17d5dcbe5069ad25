"""Scoring: is a prediction right, how good is each method, and which of two is better."""

from flexray.evaluation.accuracy import MethodAccuracy, accuracy_by_method, wilson_interval
from flexray.evaluation.bootstrap import Bootstrap
from flexray.evaluation.evaluate import Evaluation, evaluate
from flexray.evaluation.match import exact_match, normalize_answer
from flexray.evaluation.output_rows import to_table
from flexray.evaluation.tables import print_evaluation

__all__ = [
    "Bootstrap",
    "Evaluation",
    "MethodAccuracy",
    "accuracy_by_method",
    "evaluate",
    "exact_match",
    "normalize_answer",
    "print_evaluation",
    "to_table",
    "wilson_interval",
]
