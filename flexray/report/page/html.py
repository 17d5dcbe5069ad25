"""An HTML page that is one file: a browser loads nothing else, as style, script and data are in it."""

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
from flexray.report.formatting import count, cut, leaves, moment, share
from flexray.report.tables import toned
from flexray.storage import redact

ASSETS = Path(__file__).parent / "assets"


def fill_page(data: object, **values: Any) -> str:
    """The page. Every value is shown as text: escaped, and with control characters spelled out.

    Args:
        data: for the script, a tree of JSON. By gzip and base64: no text in it can end its element.
        values: for the template.
    """
    css, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    packed = gzip.compress(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(), 6, mtime=0)
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    environment.filters.update(count=count, cut=cut, leaves=leaves, moment=moment, share=share)
    environment.filters.update(redact=redact, toned=toned)
    return environment.get_template("page.html.j2").render(
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
