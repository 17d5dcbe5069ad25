"""Remove credentials from what is written or shown. In case of doubt it removes too much."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,30}://"
_PORT = r"\d+(?:[/?#:,;)\]'\"\s]|$)"
# A URL in a text ends at white space or at the next link of a chain (zip://a::s3://b); but a password may
# hold white space.
_URL = re.compile(
    rf"{_SCHEME}(?:[^\n/?#:@]*:(?!\s|{_PORT})(?:(?!{_SCHEME})[^\n@])*@)?(?:(?!::{_SCHEME}|[:,]\s)\S)*"
)
# A text that is only a URL, or key=URL: white space is part of it.
_WHOLE = re.compile(rf"([\w.-]+=)?{_SCHEME}(?:(?!::{_SCHEME}|[:;,.)]\s)[^\n])*")
_ENCODED = re.compile(r"(%3A%2F%2F)[^\s/]{0,1000}?%40", re.IGNORECASE)
# Except what is hidden already.
_VALUE = re.compile(r"([?&;#][^=&;#]+)=(?!\*\*\*)[^&;#]*")
_BARE = re.compile(r"([?&;#])(?!\*\*\*)[^=&;#]+(?=[&;#]|$)")
_WORDS = r"[\w-]{0,40}"
_NAMED = re.compile(
    rf"(?<![\w-])((?:{_WORDS}(?:secret|passw(?:or)?d){_WORDS}"
    rf"|{_WORDS}(?:access|api|auth|bearer|hf|security|session)[_-]?"
    r"(?:key|token)|authorization)[\"']?\s{0,9}[:=]\s{0,9}[\"']?(?:(?:basic|bearer)\s+)?)[^\s\"',;&)}\]]+",
    re.IGNORECASE,
)
_AWS_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")


def redact(value: Any) -> Any:
    """A copy of a JSON-like value in which no URL carries user info, query values or a fragment, and no text
    the value of a key such as `password`.

    >>> redact({"files": ["s3://key:secret@bucket/a.jsonl", "https://host/b?sig=abc&v=1"]})
    {'files': ['s3://***@bucket/a.jsonl', 'https://host/b?sig=***&v=***']}
    """
    if isinstance(value, str):
        return _redact_text(value)
    if isinstance(value, Mapping):
        return {key: redact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value


def _redact_text(text: str) -> str:
    if "://" in text:
        urls = _WHOLE if _WHOLE.fullmatch(text) else _URL
        text = urls.sub(lambda url: _redact_url(url.group()), text)
    text = _ENCODED.sub(rf"\1{HIDDEN}%40", text)
    return _AWS_KEY_ID.sub(HIDDEN, _NAMED.sub(rf"\1{HIDDEN}", text))


def _redact_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    before, at, behind = rest.rpartition("@")
    if ":" in before:  # user:password@, and the password may hold anything (the secret keys of AWS have /)
        if re.search("[?#]", before):
            return f"{scheme}://{HIDDEN}"  # or the @ is in the query, followed by a secret
        rest = HIDDEN + at + behind
    elif user := re.match(r"[^/?#]*@", rest):
        rest = HIDDEN + at + rest[user.end() :]
    rest = _VALUE.sub(rf"\1={HIDDEN}", rest)
    if scheme.lower().endswith(("http", "https")):  # elsewhere ? is a wild card, and # part of a name
        rest = _BARE.sub(rf"\1{HIDDEN}", rest)
    return f"{scheme}://{rest}"
