"""Source files to Questions: `scan` plans on the driver, `read_shard` reads in a worker.

`with_few_shots` draws the few-shots before either.
"""

from flexray.data.few_shots import with_few_shots
from flexray.data.files import list_files
from flexray.data.scan import Scan, scan
from flexray.data.shard import read_shard

__all__ = ["Scan", "list_files", "read_shard", "scan", "with_few_shots"]
