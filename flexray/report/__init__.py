"""What a person looks at: the mask of one sample, and the summary of a run."""

from flexray.report.row_mask import show_row_mask
from flexray.report.summary import print_summary

__all__ = ["print_summary", "show_row_mask"]
