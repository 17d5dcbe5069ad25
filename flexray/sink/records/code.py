"""Which code computed rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from flexray.sink.records.sealed import Frozen


class CodeVersion(Frozen):
    """The version of the code that computed rows."""

    flexray: str
    """The release."""
    commit: str
    """The git commit, followed by `-dirty` if files were changed; "" if unknown."""
    source_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    """Digest of the source files that determine the answers; "" if unknown."""
    values_version: int
    """Code of the same values version gives the same answers (`flexray.engine.values`)."""


CODE_OF_0_1 = CodeVersion(flexray="0.1", commit="", source_sha256="", values_version=1)
"""The version of records that do not name one; flexray 0.1 wrote them."""
