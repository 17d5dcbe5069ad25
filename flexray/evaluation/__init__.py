"""Scoring: is a prediction right, how good is each method, and which of two is better."""

from flexray.evaluation.accuracy import ScoreCounts, accuracy_by_method, sentences_note
from flexray.evaluation.bootstrap import Bootstrap
from flexray.evaluation.evaluate import Evaluation, evaluate
from flexray.evaluation.metrics import make_metrics, register_metric
from flexray.evaluation.output_rows import to_table
from flexray.evaluation.tables import print_evaluation

__all__ = [
    "Bootstrap",
    "Evaluation",
    "ScoreCounts",
    "accuracy_by_method",
    "evaluate",
    "make_metrics",
    "print_evaluation",
    "register_metric",
    "sentences_note",
    "to_table",
]
