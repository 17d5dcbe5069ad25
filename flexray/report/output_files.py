"""The files that reports write, and HTML pages that are one file each.

Style, script and data are in the page: a browser loads nothing else.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flexray import __version__
from flexray.console.terminal import printable
from flexray.errors import OutputError
from flexray.report import formatting
from flexray.report.tables import toned
from flexray.storage import redact

ASSETS = Path(__file__).parent / "assets"
NUMBER_FILTERS = ("count", "cut", "leaves", "moment", "share")


def write_file(path: Path, content: str | bytes, option: str, what: str = "") -> None:
    """Write a file that the user asked for; its folder is made.

    Args:
        option: the command line option that names the file.
        what: the content, in words, for the error message.

    Raises:
        OutputError: the folder cannot be made or the file not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as e:
        cannot = f"{what} cannot" if what else "cannot"
        raise OutputError(f"{path}: {cannot} be written: {e}. Give another {option}.") from e


def fill_page(name: str, data: object, **values: Any) -> str:
    """The page `name`.html.j2 with the style of all pages and its script `name`.js.

    Every value is shown as text: escaped, and with control characters spelled out.

    Args:
        data: for the script, a tree of JSON. By gzip and base64: no text in it can end its element.
        values: for the template.
    """
    css, common, own = (
        (ASSETS / file).read_text(encoding="utf-8") for file in ("style.css", "page.js", f"{name}.js")
    )
    script = common + own
    packed = gzip.compress(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(), 6, mtime=0)
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    environment.filters.update({name: getattr(formatting, name) for name in NUMBER_FILTERS})
    environment.filters.update(redact=redact, toned=toned)
    return environment.get_template(f"{name}.html.j2").render(
        **values,
        version=__version__,
        data=Markup(base64.b64encode(packed).decode()),
        style=Markup(css),
        script=Markup(script),
        # the browser runs and loads nothing but these two, even if an escape were missing
        policy=f"default-src 'none'; img-src data:; style-src {_digest(css)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
    )


def _digest(source: str) -> str:
    """What a content security policy calls an element of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
