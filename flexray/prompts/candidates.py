"""The answers that a row chooses among."""

from __future__ import annotations

from collections.abc import Sequence

from flexray.config import GenerationConfig


def candidates_of(own: Sequence[str] | None, relation: str, config: GenerationConfig) -> tuple[str, ...]:
    """The candidates of a row, in order.

    Args:
        own: the row's.
        relation: the row's; "": none.

    Returns:
        () if the row should have some and has none, or if answers are generated.
    """
    given = config.candidates
    if given is None:
        return ()
    if given == "row":
        return tuple(own or ())
    return given.get(relation, ()) if isinstance(given, dict) else given
