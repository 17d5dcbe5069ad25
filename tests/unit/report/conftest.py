"""Fixtures of the tests of reports."""

from tests.unit.sink.conftest import folder

__all__ = ["folder"]
