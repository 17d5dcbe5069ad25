"""A signal is raised where it can be, and ends a command with one line."""

import signal
import subprocess
import sys

import pytest

from flexray.console.signals import Stopped, stoppable

BEGIN = """
import os, signal, sys, time
from flexray.console.signals import Stopped, ending_by, stoppable
def send(signum): os.kill(os.getpid(), signum); time.sleep(30)
"""
PROGRAMS = {
    "raised": """
with stoppable():
    try:
        send(signal.SIGTERM)
    except Stopped as e:
        e.add_note("3 of 4")
        print("released", flush=True)
        raise
""",
    "what_a_library_makes_of_it": """
with stoppable():
    try:
        send(signal.SIGTERM)
    except BaseException:
        os.write(2, b"*** noise")
        raise ValueError("no") from None
""",
    "not_raised_where_it_would_be_lost": """
with stoppable(), ending_by(lambda e: (e.add_note("0 of 4"), print("released", flush=True))):
    try:
        send(signal.SIGINT)
    except BaseException:
        print("raised", flush=True)
""",
    "the_end_of_the_terminal": """
with stoppable():
    send(signal.SIGHUP)
""",
    "not_under_nohup": """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with stoppable():
    os.kill(os.getpid(), signal.SIGHUP)
    print("on", flush=True)
""",
    "a_second_signal": """
with stoppable():
    try:
        send(signal.SIGTERM)
    finally:
        send(signal.SIGTERM)
        print("waited", flush=True)
""",
}
ENDS = {
    "raised": (143, "released\n", "stopped by SIGTERM: 3 of 4\n"),
    "what_a_library_makes_of_it": (143, "", "stopped by SIGTERM\n"),
    "not_raised_where_it_would_be_lost": (130, "released\n", "stopped by SIGINT: 0 of 4\n"),
    "the_end_of_the_terminal": (129, "", "stopped by SIGHUP\n"),
    "not_under_nohup": (0, "on\n", ""),
    "a_second_signal": (143, "", "stopped by SIGTERM\n"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_signal_ends_a_command_with_one_line(name):
    command = [sys.executable, "-c", BEGIN + PROGRAMS[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == ENDS[name]


def test_handlers_are_as_before_once_a_command_has_ended():
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


def test_it_is_no_exception_that_anything_goes_on_after():
    assert not issubclass(Stopped, Exception)
    assert Stopped(signal.SIGTERM).exit_code == 143
