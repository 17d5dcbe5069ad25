"""Storage, local or remote: how it is reached, how long a fault is sat out, and what is said of it."""

from flexray.storage.access import PATIENCE_VARIABLE, connect, patiently, write_file
from flexray.storage.listing import matches
from flexray.storage.reasons import StorageError, describe
from flexray.storage.scrub import scrub
from flexray.storage.stream import open_file, read_range

__all__ = [
    "PATIENCE_VARIABLE",
    "StorageError",
    "connect",
    "describe",
    "matches",
    "open_file",
    "patiently",
    "read_range",
    "scrub",
    "write_file",
]
