"""Checks of a machine, and of what a configuration names there, before a run.

A check is a function from the configuration (None: there is none) to results, and one line in CHECKS.
"""

from flexray.preflight.doctor.examine import Check, examine, print_outcomes
from flexray.preflight.doctor.machine_checks import check_compiler, check_disk, check_gpu, check_memory
from flexray.preflight.doctor.packages import check_packages, check_python
from flexray.preflight.doctor.process_checks import check_attention, check_cluster
from flexray.preflight.doctor.recipe_checks import check_data, check_model, check_output

CHECKS: dict[str, Check] = {
    "python": check_python,
    "packages": check_packages,
    "compiler": check_compiler,
    "gpu": check_gpu,
    "memory": check_memory,
    "disk": check_disk,
    "model": check_model,
    "data": check_data,
    "output": check_output,
    "ray": check_cluster,
    "attention": check_attention,
}
"""In the order in which they are made: the quick ones first."""

__all__ = ["CHECKS", "examine", "print_outcomes"]
