"""From source files to plan rows, which are all that the rest of a run reads.

`scan` reads a data set in one process, and `with_few_shots` draws the few-shots, of rows that are not asked.
"""

from flexray.data.few_shots import refuse_asked_few_shots, with_few_shots
from flexray.data.files import list_files
from flexray.data.plan_rows import PLAN_SCHEMA, to_questions
from flexray.data.ranges import Range, list_ranges
from flexray.data.repeats import Repeat, find_repeats, mark_repeats
from flexray.data.scan import (
    RangeReader,
    Summary,
    check_files,
    check_summaries,
    last_asked,
    read_range,
    scan,
    source_versions,
)
from flexray.data.selection import up_to

__all__ = [
    "PLAN_SCHEMA",
    "Range",
    "RangeReader",
    "Repeat",
    "Summary",
    "check_files",
    "check_summaries",
    "find_repeats",
    "last_asked",
    "list_files",
    "list_ranges",
    "mark_repeats",
    "read_range",
    "refuse_asked_few_shots",
    "scan",
    "source_versions",
    "to_questions",
    "up_to",
    "with_few_shots",
]
