"""Take credentials out of what is written down or shown (in `storage/`: the stages before need it too)."""

from flexray.storage.scrub import HIDDEN, scrub

__all__ = ["HIDDEN", "scrub"]
