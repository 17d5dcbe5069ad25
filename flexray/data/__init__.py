"""From source files to Questions: `scan` makes the plan on the driver, `read_shard` reads a shard in a
worker.

Before both, `with_few_shots` draws the few-shots.
"""

from flexray.data.few_shots import with_few_shots
from flexray.data.files import list_files
from flexray.data.scan import Scan, scan
from flexray.data.shard import read_shard

__all__ = ["Scan", "list_files", "read_shard", "scan", "with_few_shots"]
