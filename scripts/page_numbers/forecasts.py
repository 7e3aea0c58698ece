"""What forecasts are worth, as benchmarks/forecasts.py measured it, before and now."""

from __future__ import annotations

from functools import cache
from typing import Any

from page_numbers.common import bare, results_of, share, table

NOW, BEFORE = "forecasts.json", "forecasts-before.json"
LADDER = {"loss": "loss", "abs_rel": "AbsRel", "delta1": "1 - δ1"}
Row = dict[str, Any]


@cache
def _measured(kind: str, name: str = NOW) -> list[Row]:
    return results_of(name)[kind]


def _earlier(kind: str, row: Row, *keys: str) -> Row:
    """The row of the same keys as the code before answered it."""
    (same,) = (one for one in _measured(kind, BEFORE) if all(one[key] == row[key] for key in keys))
    return same


def drawn() -> str:
    """Coverage of new measurements of known truths."""
    rows = []
    for row in _measured("synthetic"):
        old = _earlier("synthetic", row, "case", "way")
        near, far = row["at_4"], row["at_16"]
        laws = f"{near['laws']}"
        cells = [_share(near, "law_hits", "laws"), _share(far, "law_hits", "laws")]
        cells += [f"{_share(near)} {_share(far)}", f"{_width(near)} {_width(far)}"]
        before = f"{old['at_4']['laws']}: {_share(old['at_4'])} {_share(old['at_16'])}"
        rows.append([row["case"], row["way"], laws, *cells, before])
    draws = _measured("synthetic")[0]["draws"]
    header = ["truth", "asked as", f"law, of {draws}", "laws cover 4x", "16x", "all cover 4x, 16x"]
    return table([*header, "half width 4x, 16x", "before: law: all cover 4x, 16x"], rows)


def own_ladder() -> str:
    """Hidden runs of our own ladder."""
    rows = []
    for row in _measured("ladder"):
        if row["hidden"] == "all":
            old = _earlier("ladder", row, "quantity", "way", "hidden")
            ends = f"{_signed(row['lowest'])} to {_signed(row['highest'])}"
            told = ", ".join(f"{n} {verdict}" for verdict, n in row["verdicts"].items())
            name = LADDER[row["quantity"]]
            before = f"{old['hits']} of {old['of']}"
            cells = [f"**{row['hits']} of {row['of']}**", _width(row), ends, told, before]
            rows.append([name, row["way"], *cells])
    header = ["quantity", "asked as", "inside 90 %", "half width", "errors", "verdicts", "before"]
    return table(header, rows)


def published() -> str:
    """Published tables by rolling origins."""
    rows = []
    for row in _measured("published"):
        old = _earlier("published", row, "table")
        hits, before = (f"{one['hits']} of {one['of']}, {_share(one)}" for one in (row, old))
        laws = f"{row['law_hits']} of {row['laws']}" if row["laws"] else "none"
        cells = [share(row["level"]), hits, laws, _width(row), f"{row['reach']:.3g}", before]
        rows.append([row["table"], *cells])
    header = ["table", "level", "inside", "of laws", "half width", "reach", "before"]
    return table(header, rows)


def refits() -> str:
    """Laws as the seed paper prints them, and as its points give them."""
    rows = []
    for row in _measured("refits"):
        several = len(row["verdicts"]) > 1
        exponent = bare(row["exponent"])
        if row["ends"]:
            lo, hi = (bare(end, 2 if several else 3) for end in row["ends"])
            exponent = f"{lo} to {hi}" if several else f"{exponent} [{lo}, {hi}]"
        r2 = ", ".join(f"{one:.2f}" for one in row["r2"]).replace("0.", ".")
        verdicts = ", ".join(dict.fromkeys(row["verdicts"]))
        coefficient, printed = row["printed"]
        law = f"{coefficient:.3g} C^-{bare(printed, 4)}"
        rows.append([row["law"], law, row["of"], exponent, r2, verdicts])
    header = ["law", "printed", "points", "exponent", "R²", "verdict of a power"]
    return table(header, rows)


def denied() -> str:
    """What is no law, and rows at fault."""
    rows = []
    for row in _measured("denied"):
        old = _earlier("denied", row, "table")
        cells = ["yes" if one["caught"] else "**no**" for one in (row, old)]
        wanted = "rows or remedy named" if "named" in row else "no law"
        rows.append([row["table"], wanted, cells[0], ", ".join(row["verdicts"]), cells[1]])
    return table(["table", "wanted", "met", "verdicts", "met before"], rows)


def named() -> dict[str, str]:
    """Figures of sentences."""
    now, before = results_of(NOW), results_of(BEFORE)
    caught = [row["caught"] for row in _measured("denied")]
    return {
        "about": f"{now['machine']}, numpy {now['versions']['numpy']}, {now['date']}",
        "draws": str(now["draws"]),
        "before": before["versions"]["code"],
        "caught": f"{sum(caught)} of {len(caught)}",
    }


def _share(row: Row, hits: str = "hits", of: str = "of") -> str:
    return f"{row[hits] / row[of]:.2f}".replace("0.", ".", 1) if row[of] else "-"


def _width(row: Row) -> str:
    width = row["half_width"]
    return "-" if width is None else share(width, int(width < 0.095))


def _signed(error: float) -> str:
    return f"{100 * error:+.0f} %"
