"""What is on a page: its elements, and its text as a reader sees it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

ALONE = {"meta", "wbr", "input", "img", "br"}  # elements without an end


@dataclass
class Element:
    """An element, and all text in it."""

    name: str
    attributes: dict[str, str | None]
    text: str = ""
    inner: list[Element] = field(default_factory=list)

    def all(self, name: str) -> list[Element]:
        """All elements of this name in it."""
        return [e for child in self.inner for e in ([child] * (child.name == name) + child.all(name))]

    def by_id(self, wanted: str) -> Element:
        """The one element in it that has this id."""
        (found,) = (e for e in self.everything() if e.attributes.get("id") == wanted)
        return found

    def everything(self) -> list[Element]:
        """All elements in it."""
        return [e for child in self.inner for e in (child, *child.everything())]

    @property
    def words(self) -> str:
        """Its text, with single spaces."""
        return " ".join(self.text.split())

    def rows(self, table: int = 0) -> list[list[str]]:
        """The cells' texts of a table in it, row by row, without the head."""
        tables = [self] if self.name == "table" else self.all("table")
        (body,) = tables[table].all("tbody")
        return [[cell.words for cell in row.inner] for row in body.all("tr")]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].inner.append(element)
        if tag not in ALONE:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inner.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read_page(source: Path | str) -> Element:
    """The page, which must close what it opens."""
    text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    reader = _Reader()
    reader.feed(re.sub(r"^<!doctype html>\s*", "", text))
    reader.close()
    assert reader.open == [reader.root], "not all elements are closed"
    return reader.root


def figures(page: Element) -> dict[str, str]:
    """The figures on top, by their names."""
    found = next(e for e in page.all("dl") if e.attributes.get("class") == "figures")
    return {line.all("dt")[0].words: line.all("dd")[0].words for line in found.all("div")}


def data_of(page: Element) -> Any:
    """The tree of JSON that the page's script has."""
    return json.loads(gzip.decompress(base64.b64decode(page.by_id("data").text)))
