"""One HTML page about a run: how well, how fast and how it was computed, and what went wrong."""

from flexray.report.page.page import default_page, write_page

__all__ = ["default_page", "write_page"]
