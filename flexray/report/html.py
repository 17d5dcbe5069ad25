"""HTML pages that are one file each: style, script and data are in it, and it asks nothing of a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flexray.console.terminal import printable

ASSETS = Path(__file__).parent / "assets"


def fill_page(name: str, data: Any, **values: Any) -> str:
    """The page `name`.html.j2 with its `name`.js.

    Args:
        data: JSON-like, for the script.
        values: for the template.
    """
    return fill(ASSETS, f"{name}.html.j2", "style.css", f"{name}.js", data=data, **values)


def fill(
    folder: Path,
    template: str,
    style_file: str,
    script_file: str,
    *,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> str:
    """A template of a folder of assets, with a style and a script from there.

    All that is printed comes out as text: escaped, and with control characters spelled out.

    Args:
        filters, values: for the template, which is given `style`, `script` and `policy` besides.
    """
    style, script = ((folder / file).read_text(encoding="utf-8") for file in (style_file, script_file))
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    environment.filters.update(filters or {})
    return environment.get_template(template).render(
        **values,
        style=Markup(style),
        script=Markup(script),
        # the browser runs and loads nothing but these two, even if an escape were missing
        policy=f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
    )


def _digest(source: str) -> str:
    """What a content security policy calls an element of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
