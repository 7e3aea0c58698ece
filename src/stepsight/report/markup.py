"""HTML that cannot be injected into: text is escaped unless it was built by `tag`.

A name from a run folder may be anything, `<img onerror=...>` included; it becomes visible text.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from stepsight.report.figures import to_svg

PICTURE_BYTES = 1_900_000  # of PNG files in the page, about 2.5 MB once inside
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
MARKS = {
    "beaten": ("good", "✓ beaten"),
    "undecided": ("unsure", "~ undecided"),
    "not beaten": ("bad", "✗ not beaten"),
    "holds": ("good", "✓ holds"),
    "fails": ("bad", "✗ fails"),
    "broken sampler": ("bad", "✗ broken sampler"),
    "law": ("good", "✓ law"),
    "wins": ("good", "✓ wins"),
    "loses": ("bad", "✗ loses"),
}


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


def plot(figure: Figure, title: str) -> Html:
    """A figure, drawn into the page in the colours of its theme."""
    return tag("div", Html(to_svg(figure, title)), _class="plot")


def sections_with_links(header: Html, sections: Mapping[str, tuple[str, Html]]) -> Html:
    """The body of a page: `header` with a link to each section, then the sections, by short name
    their title and content. Empty ones are left out."""
    filled = {name: found for name, found in sections.items() if found[1]}
    links = [tag("a", name, href=f"#{name.lower()}") for name in filled]
    return join(
        tag("header", header, tag("nav", *links)),
        *(
            tag("section", tag("h2", title), content, id=name.lower())
            for name, (title, content) in filled.items()
        ),
    )


def page(title: str, body: Html) -> str:
    """A whole page that needs no other file and may load none."""
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    head = join(
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"{title} - stepsight"),
        tag("style", Html(css)),
    )
    whole = tag("html", tag("head", head), tag("body", body), lang="en")
    return f"<!doctype html>\n{whole}\n"


def note(text: str) -> Html:
    """A line beside the matter."""
    return tag("p", text, _class="note")


def mark(outcome: str) -> Html:
    """An outcome as a coloured word."""
    style, words = MARKS.get(outcome, ("unsure", f"~ {outcome}"))
    return tag("span", words, _class=f"mark {style}")


class Pictures:
    """Puts pictures into the page until their budget is spent, then names the file instead."""

    def __init__(self, budget: int = PICTURE_BYTES) -> None:
        self._left = budget

    def show(self, path: Path, caption: str) -> Html:
        size = path.stat().st_size
        if size > self._left:
            return note(f"{path.parent.name}/{path.name} is left out to keep this page small.")
        self._left -= size
        return picture(path, caption)
