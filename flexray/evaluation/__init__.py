"""Scoring: is a prediction right, how good is each method, and which of two is better."""

from flexray.evaluation.accuracy import ScoreCounts, accuracy_by_method
from flexray.evaluation.answer_metrics import METRICS, register_metric
from flexray.evaluation.bootstrap import Bootstrap
from flexray.evaluation.evaluate import Evaluation, evaluate
from flexray.evaluation.output_rows import to_table
from flexray.evaluation.tables import print_evaluation

__all__ = [
    "METRICS",
    "Bootstrap",
    "Evaluation",
    "ScoreCounts",
    "accuracy_by_method",
    "evaluate",
    "print_evaluation",
    "register_metric",
    "to_table",
]
