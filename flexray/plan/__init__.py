"""A dry run: what a run would do, need and stumble over. Holds no GPU, loads no weights, writes nothing."""

from flexray.plan.dry_run import Plan, make_plan
from flexray.plan.tables import print_plan

__all__ = ["Plan", "make_plan", "print_plan"]
