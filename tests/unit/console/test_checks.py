"""A list of checks names all that it finds; what comes from data is shown as it is."""

import io

from rich.console import Console

from flexray.console.checks import Check, Finding, make_checks, passed, print_findings, warn
from flexray.errors import ModelError


def good(subject):
    yield passed("fine")


def raising(error):
    def look(subject):
        yield passed("began")
        raise error

    return look


CHECKS = (
    Check("user", raising(ModelError("s3://me:secret@models: gone. Copy it."))),
    Check("system", raising(PermissionError(13, "Permission denied", "/data"))),
    Check("bug", raising(KeyError("x"))),
    Check("last", good),
)


def test_each_failure_is_a_finding_and_those_before_it_stay():
    found = [(finding.check, finding.status, finding.what) for finding in make_checks(CHECKS, None)]
    assert [check for check, _, _ in found] == ["user", "user", "system", "system", "bug", "bug", "last"]
    assert [status for _, status, _ in found] == ["pass", "fail"] * 3 + ["pass"]
    assert "gone. Copy it." in found[1][2]
    assert "secret" not in found[1][2]
    assert "Permission denied: '/data'" in found[3][2]
    assert found[5][2] == "the check broke off: KeyError: 'x'"


def test_what_needs_a_check_that_broke_off_is_left_out_and_so_is_what_needs_that():
    checks = (
        *CHECKS,
        Check("second", good, needs=("user", "last")),
        Check("third", good, needs=("second",)),
        Check("other", good, needs=("last",)),
    )
    assert [finding.check for finding in make_checks(checks, None)][-2:] == ["last", "other"]


def test_a_check_keeps_in_its_subject_what_later_ones_need():
    def write(subject):
        subject["seen"] = 3

    def read(subject):
        yield passed(str(subject["seen"]), "name of its own")

    (found,) = make_checks([Check("write", write), Check("read", read, needs=("write",))], {})
    assert (found.check, found.what) == ("name of its own", "3")


def test_findings_are_shown_as_they_are_with_the_advice_below():
    def bad(subject):
        yield warn("[bold]x[/bold] \x1b[2J", "Do [this].")

    out = io.StringIO()
    findings = make_checks([Check("bad", bad), Check("good", good)], None)
    shown = print_findings(findings, console=Console(file=out, width=80))
    assert shown == [
        Finding("warn", "[bold]x[/bold] \x1b[2J", "Do [this].", "bad"),
        Finding("pass", "fine", "", "good"),
    ]
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines == [
        r"warn  bad          [bold]x[/bold] \x1b[2J",
        "                   Do [this].",
        "pass  good         fine",
        "ready: 1 pass, 1 warn, 0 fail",
    ]
