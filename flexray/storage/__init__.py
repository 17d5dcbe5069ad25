"""Storage, local or remote: how it is reached, how long a fault is sat out, and what is said of it."""

from flexray.storage.access import connect, retry, starting, write_file
from flexray.storage.error_messages import StorageError, describe, translate, understand
from flexray.storage.listing import is_hidden, matches, one_each, type_of
from flexray.storage.redact import redact
from flexray.storage.stream import open_file, read_range

__all__ = [
    "StorageError",
    "connect",
    "describe",
    "is_hidden",
    "matches",
    "one_each",
    "open_file",
    "read_range",
    "redact",
    "retry",
    "starting",
    "translate",
    "type_of",
    "understand",
    "write_file",
]
