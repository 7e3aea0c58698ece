"""HTML that cannot be injected into: text is escaped unless it was built by `tag`.

A name from a run folder may be anything, `<img onerror=...>` included; it becomes visible text.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from pathlib import Path


class Html(str):
    """Text that is markup already."""


def tag(name: str, *children: str, **attributes: str) -> Html:
    """`<name attributes>children</name>`; children that are not `Html` are escaped.

    Attribute names may carry a leading or trailing underscore where Python reserves the word.
    """
    shown = "".join(
        f' {key.strip("_")}="{html.escape(value)}"' for key, value in attributes.items() if value
    )
    return Html(f"<{name}{shown}>{join(*children)}</{name}>")


def join(*parts: str) -> Html:
    """Parts after another, escaped where they are not `Html`."""
    return Html(
        "".join(part if isinstance(part, Html) else html.escape(str(part)) for part in parts)
    )


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Html:
    """A table that scrolls by itself when it is wider than the page."""
    head = tag("tr", *(tag("th", cell, scope="col") for cell in header))
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), _class="wide")


def fold(summary: str, *children: str) -> Html:
    """Content behind a line to click on."""
    return tag("details", tag("summary", summary), *children)


def listing(items: Iterable[str]) -> Html:
    """A bullet list."""
    return tag("ul", *(tag("li", item) for item in items))


def picture(path: Path, caption: str) -> Html:
    """A PNG file, put into the page itself."""
    data = base64.b64encode(path.read_bytes()).decode()
    image = Html(f'<img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">')
    return tag("figure", image, tag("figcaption", caption))
