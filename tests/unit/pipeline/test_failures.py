"""An error of the user's comes from a worker as it was raised there."""

import dataclasses
import json
import traceback

import pytest

from flexray.errors import DataError, UserError
from flexray.pipeline.columns import (
    ANSWERED_SCHEMA,
    COMMITTED_SCHEMA,
    PREPARED_SCHEMA,
    failure_row,
    read_answered,
    read_committed,
    read_prepared,
)
from flexray.pipeline.failures import Failure, or_failure
from flexray.sink.records.damage import DamageError
from flexray.storage.error_messages import StorageError

STAGES = [
    (PREPARED_SCHEMA, read_prepared),
    (ANSWERED_SCHEMA, read_answered),
    (COMMITTED_SCHEMA, read_committed),
]


class StubbornError(OSError):
    """Wants more than it keeps."""

    def __init__(self, where: str, what: str):
        super().__init__(f"{where}: {what}")


def all_kinds(kind):
    return [kind, *(k for sub in kind.__subclasses__() for k in all_kinds(sub))]


def sent(failure):
    """As it arrives in the driver, through all stages."""
    for schema, read in STAGES:
        (failure,) = read(failure_row(failure, schema))
    return failure.error()


def raised(error):
    def fail():
        raise error

    return sent(or_failure(fail))


ERRORS = [
    *(kind("what, where, what to do") for kind in all_kinds(UserError) if kind is not DamageError),
    DataError("Zürich 東京 🎉\n\0: two lines"),
    DataError(""),
    DataError("a file's name that is not UTF-8: \udcff".encode(errors="backslashreplace").decode()),
    DamageError("a/b", "is no JSON", "Run again.", "manifest_damaged"),
    StorageError("s3://b: busy", reason="busy", advice="Wait."),
    OSError("disk is full"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_with_its_type_message_and_facts(error):
    found = raised(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    facts = {key: value for key, value in vars(found).items() if key != "__notes__"}
    assert facts == {key: value for key, value in vars(error).items() if key != "__notes__"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "/none"),
            "[Errno 2] No such file or directory: '/none'",
        ),
        (StubbornError("disk", "is full"), "disk: is full"),
        (TimeoutError(), ""),
    ],
)
def test_any_other_error_of_the_system_arrives_as_an_oserror_with_its_message(error, message):
    found = raised(error)
    assert type(found) is OSError
    assert str(found) == message


def test_a_name_of_a_file_that_is_not_utf_8_is_written_with_escapes():
    assert str(raised(DataError("/data/\udcff.jsonl: is missing"))) == r"/data/\udcff.jsonl: is missing"


def test_a_class_that_the_driver_does_not_know_arrives_as_an_error_of_the_users():
    failure = Failure("plugin.TheirError", "no", "{}", [], "")
    assert (type(sent(failure)), str(sent(failure))) == (UserError, "no")


def test_the_notes_of_an_error_come_before_its_traceback():
    error = DataError("gone")
    error.add_note("It was there.")
    said, where = raised(error).__notes__
    assert said == "It was there."
    assert where.startswith("In a worker:\nTraceback (most recent call last):\n")


def test_where_it_was_raised_is_told_by_its_traceback_but_not_by_its_message():
    def deep_down():
        raise DataError("gone")

    found = sent(or_failure(deep_down))
    assert str(found) == "gone"
    assert "in deep_down\n" in "".join(traceback.format_exception(found))


def test_only_texts_travel_of_what_an_error_knows():
    error = DataError("gone")
    error.path, error.stream = "a/b", object()
    assert json.loads(or_failure(lambda: (_ for _ in ()).throw(error)).facts) == {"path": "a/b"}


@pytest.mark.parametrize("kind", [ZeroDivisionError, RuntimeError, BrokenPipeError])
def test_what_tells_a_user_nothing_stays_an_error(kind):
    def fail():
        raise kind("no")

    with pytest.raises(kind):
        or_failure(fail)


def test_what_succeeds_is_returned():
    assert or_failure(lambda: 3) == 3


def test_the_host_is_named_if_it_is_another_one():
    failure = Failure.of(DataError("gone"))
    assert str(failure.error()) == "gone"
    error = dataclasses.replace(failure, host="gpu-3").error()
    assert (type(error), str(error)) == (DataError, "node gpu-3: gone")
