"""One row under the microscope: what each generated token was chosen from, and what the answer looked at."""

from flexray.explain.explain import explain
from flexray.explain.explanation import Explanation

__all__ = ["Explanation", "explain"]
