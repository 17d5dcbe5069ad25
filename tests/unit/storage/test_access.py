import logging
import pickle
import socket
import time

import aiohttp
import botocore.exceptions
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from flexray.errors import ConfigError, DataError
from flexray.storage import StorageError, connect, retry, starting
from flexray.storage.access import PATIENCE_VARIABLE


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setenv(PATIENCE_VARIABLE, "1")


def failing(*errors):
    """A call that raises each error once and then returns "done"; and the list of what is still to come."""
    left = list(errors)

    def call():
        if left:
            raise left.pop(0)
        return "done"

    return call, left


PASSING = [
    ConnectionResetError("reset by peer"),
    TimeoutError("timed out"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"),
    aiohttp.ClientPayloadError("Response payload is not completed"),
    aiohttp.ServerDisconnectedError(),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda e: type(e).__name__)
def test_what_passes_is_sat_out(error, caplog):
    call, _ = failing(error)
    with caplog.at_level(logging.WARNING):
        assert retry("s3://b/k", call) == "done"
    assert "s3://b/k: " in caplog.text
    assert "Trying again in 0." in caplog.text


LASTING = [
    PermissionError(13, "denied", "/there"),
    botocore.exceptions.NoCredentialsError(),
    OfflineModeIsEnabled("offline"),
    botocore.exceptions.SSLError(endpoint_url="https://x", error="certificate verify failed"),
    ValueError("no URL"),
]


@pytest.mark.parametrize("error", LASTING, ids=lambda e: type(e).__name__)
def test_what_does_not_pass_is_not_tried_again(error):
    call, left = failing(error, error)
    with pytest.raises(OSError) as e:  # noqa: PT011  any, but in words
        retry("s3://b/k", call)
    assert "tried" not in str(e.value)
    assert left == [error]


def test_patience_has_an_end_and_the_error_says_what_was_done():
    call, _ = failing(*[ConnectionResetError("reset by peer")] * 99)
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"^s3://b/k: reset by peer \(tried \d+ times in [01] s\)\. ") as e:
        retry("s3://b/k", call)
    assert time.monotonic() - start < 1.5
    assert e.value.advice.endswith("start again: the run resumes.")


@pytest.fixture
def refused():
    """A URL, with a secret in it, of a port at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/a?sig=secret"


def test_a_web_server_that_is_not_there_is_not_taken_for_a_missing_file(refused):
    fs, name = connect(refused)
    with pytest.raises(StorageError, match=r"sig=\*\*\*: Connect call failed .* \(tried \d+ times") as e:
        retry(refused, lambda: fs.info(name))
    assert "Check the network" in e.value.advice
    assert "secret" not in str(e.value)


def test_who_cannot_be_reached_at_the_start_is_given_up_soon_and_who_is_busy_is_not(refused, monkeypatch):
    monkeypatch.setattr("flexray.storage.access.FIRST_PATIENCE", 0)
    fs, name = connect(refused)
    with starting():
        with pytest.raises(StorageError, match="tried 1 times"):
            retry(refused, lambda: fs.info(name))
        call, _ = failing(TimeoutError("timed out"))
        assert retry(refused, call) == "done"
    with pytest.raises(StorageError, match=r"tried (?!1 )\d+ times"):
        retry(refused, lambda: fs.info(name))


def test_no_patience_is_one_attempt(monkeypatch):
    monkeypatch.setenv(PATIENCE_VARIABLE, "0")
    call, left = failing(ConnectionResetError("reset"), ConnectionResetError("reset"))
    with pytest.raises(StorageError, match="tried 1 times"):
        retry("s3://b/k", call)
    assert len(left) == 1


def test_patience_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv(PATIENCE_VARIABLE, "long")
    with pytest.raises(ConfigError, match=f"{PATIENCE_VARIABLE}: seconds are wanted, found 'long'"):
        retry("s3://b/k", lambda: None)


def test_errors_of_the_operating_system_and_the_users_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*/nothing'"):
        retry(str(tmp_path), lambda: (tmp_path / "nothing").read_bytes())
    call, _ = failing(DataError("a: wrong"))
    with pytest.raises(DataError, match="a: wrong"):
        retry("a", call)


def test_neither_message_nor_traceback_shows_credentials():
    url = "https://me:hunter2@host/f?sig=hunter2"
    call, _ = failing(botocore.exceptions.HTTPClientError(error=f"cannot use {url}"))
    with pytest.raises(StorageError) as e:
        retry(url, call)
    assert "hunter2" not in str(e.value)
    assert e.value.__suppress_context__
    assert e.value.__cause__ is None


def test_an_error_travels_between_processes():
    call, _ = failing(PermissionError("denied"))
    with pytest.raises(StorageError) as e:
        retry("s3://b/k", call)
    copy = pickle.loads(pickle.dumps(e.value))
    assert (str(copy), copy.reason, copy.advice) == (str(e.value), "denied", e.value.advice)
