"""What a person looks at: the mask and the answer of one row, the progress of a run, and its results.

`show_mask` brings torch, so it is imported where it is used.
"""

from flexray.report.summary import print_summary
from flexray.report.work import Shard

__all__ = ["Shard", "print_summary"]
