"""JSON records that contain the digest of their own content, so that a changed record is detected."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from flexray.sink.records.damage import DamageError, DamageKind

SCHEMA_VERSION = 5
OLD_VERSIONS = (3, 4)
"""Of folders whose run cannot grow. Version 3 is that of flexray 0.1, whose records do not name the version
of the code."""
READABLE_VERSIONS = (*OLD_VERSIONS, SCHEMA_VERSION)


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Sealed(Frozen):
    advice: ClassVar[str]
    damage: ClassVar[DamageKind]

    schema_version: int = SCHEMA_VERSION
    digest: str = ""
    """sha256 of the canonical JSON of all other fields."""

    def sealed(self) -> Self:
        """The same record with its digest."""
        tree = json.loads(canonical_json(self._tree()))
        return self.model_copy(update={"digest": _seal(tree)})

    def to_bytes(self) -> bytes:
        """The record as indented JSON, one key per line."""
        return json.dumps(self._tree(), indent=2, ensure_ascii=False).encode() + b"\n"

    def to_line(self) -> bytes:
        """The record as one line of canonical JSON with a newline. Equal records have equal lines."""
        return spell(self._tree()) + b"\n"

    def _tree(self) -> dict[str, Any]:
        """The content that is written. An empty `code` is omitted, as in the records of flexray 0.1, so that
        their digests stay valid."""
        tree = self.model_dump(mode="json")
        return tree if tree.get("code") else {key: tree[key] for key in tree if key != "code"}

    @classmethod
    def parse(cls, data: bytes, path: str) -> Self:
        """Read a record back.

        Raises:
            DamageError: it is not such a record, has another schema version, or was changed.
        """
        try:
            tree = json.loads(data)
            whole = isinstance(tree, dict) and _seal(tree) == tree.get("digest")  # NaN cannot be sealed
        except ValueError as e:
            raise DamageError(path, f"is not JSON ({e})", cls.advice, cls.damage) from e
        if not isinstance(tree, dict):
            raise DamageError(path, "is not a record of flexray", cls.advice, cls.damage)
        if _is_of_another_version(tree):
            readable = ", ".join(map(str, READABLE_VERSIONS))
            what = f"has schema version {tree['schema_version']}; this flexray reads versions {readable}"
            raise DamageError(path, what, "Use the version of flexray that wrote it.", "other_version")
        if not whole:
            what = "was changed after it was written (its digest does not match)"
            raise DamageError(path, what, cls.advice, cls.damage)
        try:
            return cls.model_validate(tree)
        except ValidationError as e:
            faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in e.errors())
            raise DamageError(path, f"is not a valid record ({faults})", cls.advice, cls.damage) from e


def is_old(data: bytes) -> bool:
    """Whether a record says that it is of OLD_VERSIONS. It may be damaged."""
    try:
        tree = json.loads(data)
    except ValueError:
        return False
    return isinstance(tree, dict) and tree.get("schema_version") in OLD_VERSIONS


def canonical_json(value: Any) -> bytes:
    """The same JSON text for equal values. Raises ValueError or TypeError for values that JSON does not have,
    such as NaN."""
    # The round trip converts all keys to strings, so that they are sorted as in the parsed file.
    return spell(json.loads(json.dumps(value, allow_nan=False)))


def _is_of_another_version(tree: dict[str, Any]) -> bool:
    version = tree.get("schema_version")
    if not isinstance(version, int) or version in READABLE_VERSIONS:
        return False
    # False if only the version number was changed: then the digest matches with a readable version
    return all(_seal(tree | {"schema_version": known}) != tree.get("digest") for known in READABLE_VERSIONS)


def _seal(tree: dict[str, Any]) -> str:
    content = {key: value for key, value in tree.items() if key != "digest"}
    return hashlib.sha256(spell(content)).hexdigest()


def spell(plain: Any) -> bytes:
    """Canonical JSON of a value whose keys are all strings."""
    return json.dumps(
        plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
