"""Storage, local or remote: how it is reached, how long a fault is sat out, and what is said of it."""

from flexray.storage.access import connect, patiently, starting, write_file
from flexray.storage.listing import is_hidden, matches, one_each, type_of
from flexray.storage.reasons import StorageError, describe, translate, understand
from flexray.storage.scrub import scrub
from flexray.storage.stream import open_file, read_range

__all__ = [
    "StorageError",
    "connect",
    "describe",
    "is_hidden",
    "matches",
    "one_each",
    "open_file",
    "patiently",
    "read_range",
    "scrub",
    "starting",
    "translate",
    "type_of",
    "understand",
    "write_file",
]
