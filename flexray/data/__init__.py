"""Source files to Questions: `scan` plans on the driver, `read_shard` reads in a worker."""

from flexray.data.files import SourceFile, list_files
from flexray.data.scan import Scan, scan
from flexray.data.shard import read_shard

__all__ = ["Scan", "SourceFile", "list_files", "read_shard", "scan"]
