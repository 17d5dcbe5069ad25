"""A dry run: what a run would do, need and stumble over. Holds no GPU, loads no weights, writes nothing."""

from flexray.plan.dry_run import make_plan
from flexray.plan.tables import print_plan

__all__ = ["make_plan", "print_plan"]
