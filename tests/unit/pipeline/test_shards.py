"""An error of the user's comes from a worker as it was raised there."""

import pickle
import traceback

import pytest

from flexray.errors import DataError, UserError
from flexray.pipeline.shards import Failure, or_failure
from flexray.sink.damage import DamageError
from flexray.storage.error_messages import StorageError


class StubbornError(OSError):
    """Wants more than it keeps."""

    def __init__(self, where: str, what: str):
        super().__init__(f"{where}: {what}")


def all_kinds(kind):
    return [kind, *(k for sub in kind.__subclasses__() for k in all_kinds(sub))]


ERRORS = [
    *(kind("what, where, what to do") for kind in all_kinds(UserError) if kind is not DamageError),
    DamageError("a/b", "is no JSON", "Run again.", "manifest_damaged"),
    StorageError("s3://b: busy", reason="busy", advice="Wait."),
    FileNotFoundError(2, "No such file or directory", "/none"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_with_its_type_message_and_facts(error):
    def fail():
        raise error

    found = pickle.loads(pickle.dumps(or_failure(fail))).error
    assert type(found) is type(error)
    assert str(found) == str(error)
    facts = {key: value for key, value in vars(found).items() if key != "__notes__"}
    assert facts == vars(error)


def test_an_error_that_cannot_be_rebuilt_arrives_with_its_message():
    found = pickle.loads(pickle.dumps(Failure.of(StubbornError("disk", "is full")))).error
    assert type(found) is OSError
    assert str(found) == "disk: is full"


def test_where_it_was_raised_is_told_by_its_traceback_but_not_by_its_message():
    def deep_down():
        raise DataError("gone")

    found = pickle.loads(pickle.dumps(or_failure(deep_down))).error
    assert str(found) == "gone"
    assert "in deep_down\n" in "".join(traceback.format_exception(found))


@pytest.mark.parametrize("kind", [ZeroDivisionError, RuntimeError, BrokenPipeError])
def test_what_tells_a_user_nothing_stays_an_error(kind):
    def fail():
        raise kind("no")

    with pytest.raises(kind):
        or_failure(fail)


def test_what_succeeds_is_returned():
    assert or_failure(lambda: 3) == 3
