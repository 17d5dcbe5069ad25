"""Take credentials out of what is written down or shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
# `user@`, `user:password@`, and `key:secret@` with slashes in the secret (AWS keys have them), but
# not the `@` of a path behind `host:port/`.
_USERINFO = re.compile(r"(?<=://)(?:[^\s/?#]*@|[^\s/?#:@]+:(?!\d+(?:[/?#]|$))\S*@)")
_QUERY_VALUE = re.compile(r"([?&;][^\s=&;#]+)=[^\s&;#]*")


def scrub(value: Any) -> Any:
    """A copy of a JSON-like value in which no URL carries user info or query values.

    >>> scrub({"files": ["s3://key:secret@bucket/a.jsonl", "https://host/b?sig=abc&v=1"]})
    {'files': ['s3://***@bucket/a.jsonl', 'https://host/b?sig=***&v=***']}
    """
    if isinstance(value, str):
        return _URL.sub(lambda url: _scrub_url(url.group()), value)
    if isinstance(value, Mapping):
        return {key: scrub(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub(item) for item in value]
    return value


def _scrub_url(url: str) -> str:
    return _QUERY_VALUE.sub(rf"\1={HIDDEN}", _USERINFO.sub(f"{HIDDEN}@", url))
