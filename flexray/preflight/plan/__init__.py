"""A dry run: what a run would do, need and fail at. Uses no GPU, loads no weights, writes nothing."""

from flexray.preflight.plan.dry_run import make_plan
from flexray.preflight.plan.print_plan import print_plan

__all__ = ["make_plan", "print_plan"]
