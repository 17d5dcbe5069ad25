"""Checks of a machine, and of what a configuration names there, before a run.

A check is a function from the configuration (None: there is none) to findings, and one line in CHECKS.
"""

from flexray.preflight.doctor.attention import check_attention
from flexray.preflight.doctor.cluster import check_cluster
from flexray.preflight.doctor.examine import Check, examine
from flexray.preflight.doctor.inputs import check_data, check_model
from flexray.preflight.doctor.machine import check_compiler, check_disk, check_gpu, check_memory
from flexray.preflight.doctor.output import check_output
from flexray.preflight.doctor.packages import check_packages, check_python
from flexray.preflight.doctor.tables import print_outcomes

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
