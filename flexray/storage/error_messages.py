"""What an error of a file system means: its kind, whether it is transient, and what to do about it.

Each file system of fsspec raises its own errors. They are recognised by HTTP status, by S3's codes and by the
names of their classes, since a package such as s3fs or gcsfs may not be installed.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flexray.storage.redact import HIDDEN, redact

ErrorKind = Literal[
    "missing",
    "exists",
    "no bucket",
    "busy",
    "unreachable",
    "credentials",
    "refused",
    "full",
    "read-only",
    "other",
]
TRANSIENT: set[ErrorKind] = {"busy", "unreachable"}

_AWS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN (or the profile of AWS_PROFILE)"
_AGAIN = "start again: the run resumes"

_ADVISED = ("full", "read-only")  # the operating system's own message does not say what to do
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_CODES = {"QuotaExceeded", "XMinioStorageFull"}
_BUSY_CODES = {
    "BadDigest",  # damaged in transfer
    "ConditionalRequestConflict",  # another process is writing or removing the file
    "IncompleteBody",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "XAmzContentSHA256Mismatch",
}
_CREDENTIAL_CODES = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_CREDENTIAL_CLASSES = {
    "CredentialRetrievalError",
    "GoogleAuthError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "SSOError",
    "TokenRetrievalError",
}
# Subclasses of connection errors that are not transient.
_LASTING_CLASSES = {"ClientSSLError", "OfflineModeIsEnabled", "SSLError", "UnsupportedProtocol"}
_UNREACHABLE_CLASSES = {
    "ClientConnectorError",
    "ConnectError",
    "ConnectTimeoutError",
    "ConnectionTimeoutError",
    "EndpointConnectionError",
    "gaierror",
}
_BUSY_CLASSES = {
    "ChunkedEncodingError",
    "ClientConnectionError",
    "ClientPayloadError",  # the answer was shorter than announced
    "ConnectionClosedError",
    "ConnectionError",
    "IncompleteRead",
    "IncompleteReadError",
    "ReadTimeoutError",
    "ResponseParserError",  # some busy servers answer with half an XML
    "ResponseStreamingError",
    "Timeout",
    "TimeoutError",
    "TransportError",
}


class StorageError(OSError):
    """An error of a file system: `reason` says what happened, `advice` what to do."""

    def __init__(self, message: str, *, reason: str = "", advice: str = "") -> None:
        super().__init__(message)
        self.reason, self.advice = reason or message, advice


class TruncatedError(ConnectionError):
    """A read returned less than the file holds, without an error."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The kind of an error, what happened, and what to do."""

    kind: ErrorKind
    text: str
    advice: str


def diagnose(error: BaseException, url: str) -> Diagnosis:
    """Diagnose an error that was raised for a path or URL."""
    kind = _kind(error)
    is_s3 = url.startswith(("s3:", "s3a:"))
    advice: dict[ErrorKind, str] = {
        "no bucket": "Create the bucket, or correct the URL.",
        "busy": f"The storage is overloaded or out of order: when it is well, {_AGAIN}.",
        "unreachable": f"Check {'AWS_ENDPOINT_URL and ' if is_s3 else ''}the network, and {_AGAIN}.",
        "credentials": "The credentials are missing, wrong or have expired: renew "
        f"{_AWS if is_s3 else 'them'} and {_AGAIN}.",
        "refused": "The credentials do not allow this, are wrong or have expired: have it allowed, or "
        f"renew {_AWS if is_s3 else 'them'}, and {_AGAIN}.",
        "full": f"Free space there, or have the quota raised, and {_AGAIN}.",
        "read-only": "Have the file system mounted for writing, or give another folder.",
    }
    return Diagnosis(kind, _text(error, url), advice.get(kind, ""))


def translate(error: BaseException, url: str, tried: str = "") -> OSError:
    """The error to raise in place of this one. `tried`: the attempts that were made, for the message.

    Returns:
        FileNotFoundError for a missing file; the error itself if the operating system raised it, it names
        its file and needs no advice; else a StorageError.
    """
    diagnosis = diagnose(error, url)
    if isinstance(error, StorageError):
        return error
    if isinstance(error, OSError) and error.filename is not None and diagnosis.kind not in _ADVISED:
        return error
    if diagnosis.kind == "missing":
        return FileNotFoundError(f"{redact(url)}: there is no such file")
    text = f"{diagnosis.text} ({tried})" if tried else diagnosis.text
    message = f"{redact(url)}: {text}. {diagnosis.advice}".rstrip()
    return StorageError(message, reason=text, advice=diagnosis.advice)


def describe(error: BaseException, url: str = "") -> str:
    """What happened and what to do, as sentences without the name of the file."""
    if isinstance(error, StorageError):
        return f"{error.reason.rstrip('.')}. {error.advice}".rstrip()
    return f"{type(_informative(error)).__name__}: {_text(error, url)}."


def hide(text: str, url: str) -> str:
    """A message about a URL without its credentials, which some packages repeat outside of any URL."""
    for link in url.split("::") if redact(url) != url else ():
        user = link.partition("://")[2].rpartition("@")[0]
        if ":" in user:
            # the whole; the password; and with slashes in it, what a package takes for a host or bucket
            for part in (user, user.partition(":")[2], *user.split("/")):
                if len(part) > 3:  # a shorter one may be part of any word
                    text = text.replace(part, HIDDEN)
    return str(redact(text))


def _kind(error: BaseException) -> ErrorKind:
    status, code, _ = _http(error)
    names = {cls.__name__ for e in _chain(error) for cls in type(e).__mro__}
    if code == "NoSuchBucket":
        return "no bucket"
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or code in _FULL_CODES or status == 507:
        return "full"
    if number == errno.EROFS:
        return "read-only"
    if code in _CREDENTIAL_CODES or names & _CREDENTIAL_CLASSES or status == 401:
        return "credentials"
    if code in _BUSY_CODES or status in (408, 425, 429) or (status >= 500 and status != 501):
        return "busy"
    if isinstance(error, PermissionError) or status == 403:
        return "refused"
    failed = _LASTING_CLASSES | _UNREACHABLE_CLASSES | _BUSY_CLASSES
    if isinstance(error, FileNotFoundError) and (status or not names & failed):
        return "missing"
    if status in (409, 412) or isinstance(error, FileExistsError) or "ResourceExistsError" in names:
        return "exists"
    if status or names & _LASTING_CLASSES:
        return "other"
    if names & _UNREACHABLE_CLASSES:
        return "unreachable"
    return "busy" if names & _BUSY_CLASSES else "other"


def _text(error: BaseException, url: str) -> str:
    error = _informative(error)
    status, code, message = _http(error)
    if status and code:
        text = f"{message} ({code})" if code == str(status) else f"{message} ({status} {code})"
    else:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        text = f"{text} (HTTP {status})" if status else text
    text = " ".join(hide(text, url).split()).rstrip(".")
    return text[:500] or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def _informative(error: BaseException) -> BaseException:
    """The error that says what happened: fsspec's HTTP file system raises FileNotFoundError for any
    failure."""
    return error.__cause__ or error if isinstance(error, FileNotFoundError) else error


def _http(error: BaseException) -> tuple[int, str, str]:
    """Status, code and message of the HTTP answer that caused an error; (0, "", "") if there is none."""
    for e in _chain(error):
        answer = getattr(e, "response", None)
        if isinstance(answer, dict):  # botocore
            said = answer.get("Error", {})
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0
            message = str(said.get("Message") or "").rstrip(".") or "no reason given"
            return int(status), str(said.get("Code") or ""), message
        status = getattr(e, "status", None) or getattr(answer, "status_code", None)  # aiohttp, requests
        if type(e).__name__ == "HttpError":  # gcsfs; the `code` of aiohttp's errors is not the server's
            status = getattr(e, "code", None)
        if isinstance(status, int) and status >= 300:
            return status, "", ""
    return 0, "", ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
