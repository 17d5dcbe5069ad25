"""What a person looks at: the mask and the answer of one row, the progress of a run, and its results."""

from flexray.report.show_mask import show_mask
from flexray.report.summary import print_summary
from flexray.report.work import Shard

__all__ = ["Shard", "print_summary", "show_mask"]
