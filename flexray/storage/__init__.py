"""Storage, local or remote: connecting, reading, listing, retries and error messages."""

from flexray.storage.access import connect, retry, starting, write_file
from flexray.storage.error_messages import StorageError, describe, diagnose, translate
from flexray.storage.listing import (
    BOOKKEEPING,
    distinct_files,
    is_hidden,
    matches,
    reads_output,
    type_of,
)
from flexray.storage.read import open_file, read_range
from flexray.storage.redact import redact

__all__ = [
    "BOOKKEEPING",
    "StorageError",
    "connect",
    "describe",
    "diagnose",
    "distinct_files",
    "is_hidden",
    "matches",
    "open_file",
    "read_range",
    "reads_output",
    "redact",
    "retry",
    "starting",
    "translate",
    "type_of",
    "write_file",
]
