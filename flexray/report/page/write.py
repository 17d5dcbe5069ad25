"""The page as a file."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup, escape

from flexray import __version__
from flexray.console.terminal import printable
from flexray.report.html import fill
from flexray.report.page import text
from flexray.report.page.facts import Facts, gather
from flexray.report.saving import writing
from flexray.sink import OutputFolder
from flexray.sink.run import utc_now
from flexray.storage import redact

_ASSETS = Path(__file__).parent / "assets"


def default_page(output: str) -> Path:
    """Where the page of an output folder goes: beside it if it is local, else into `out/` of this folder."""
    place = str(OutputFolder(output)).rstrip("/")
    parent, _, name = place.rpartition("/")
    return Path("out" if "://" in place else parent) / f"{name}-report.html"


def write_page(output: str, html: Path, *, earlier: str | None = None) -> None:
    """Write the page about a run, finished or not.

    Args:
        earlier: the output folder of a run to compare it with.

    Raises:
        OutputError: a folder holds no run or cannot be read, the two cannot be compared, or the page
            cannot be written.
    """
    page = render(gather(output, earlier))
    with writing(html, "--html"):
        html.write_text(page, encoding="utf-8")


def render(facts: Facts) -> str:
    """The page: styles, script and plots are in it, and it asks nothing of a network."""
    functions = (
        *(text.count, text.cut, text.duration, text.fixed, text.leaves, text.moment),
        *(text.p_value, text.percent, text.points, text.rate, redact),
    )
    return fill(
        _ASSETS,
        "page.html.j2",
        "style.css",
        "script.js",
        filters={function.__name__: function for function in functions}
        | {"breakable": _breakable, "place": lambda share: f"{share:.2f}%"},
        facts=facts,
        percent_mark=text.percent_mark,
        points_mark=text.points_mark,
        version=__version__,
        now=text.moment(utc_now()),
    )


def _breakable(name: str) -> Markup:
    """A method's name, which may go on in the next line behind each slash."""
    return escape(printable(name)).replace("/", Markup("/<wbr>"))
