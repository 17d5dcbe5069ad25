"""flexray: bulk question answering on Ray, fused over paraphrases inside attention."""

__version__ = "0.2.0"
