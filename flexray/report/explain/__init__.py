"""One row under the microscope: what each generated token was chosen from, and what the answer looked at."""

from flexray.report.explain.explain import explain
from flexray.report.explain.explanation import Explanation

__all__ = ["Explanation", "explain"]
