"""The files that reports write, and HTML pages that are one file each.

Style, script and data are in the page: a browser loads nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flexray.console.terminal import printable
from flexray.errors import OutputError

ASSETS = Path(__file__).parent / "assets"


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


def fill_page(
    name: str,
    *,
    style: str = "style.css",
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> str:
    """The page `name`.html.j2 with its script `name`.js.

    Every value is shown as text: escaped, and with control characters spelled out.

    Args:
        filters, values: for the template, which is given `style`, `script` and `policy` besides.
    """
    css, script = ((ASSETS / file).read_text(encoding="utf-8") for file in (style, f"{name}.js"))
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    environment.filters.update(filters or {})
    return environment.get_template(f"{name}.html.j2").render(
        **values,
        style=Markup(css),
        script=Markup(script),
        # the browser runs and loads nothing but these two, even if an escape were missing
        policy=f"default-src 'none'; style-src {_digest(css)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
    )


def _digest(source: str) -> str:
    """What a content security policy calls an element of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
