"""The planner and the strategies of test-time compute, of an earlier generalist."""

from __future__ import annotations

from page_numbers.common import rows_of

MERGED = (
    "single",
    "mean",
    "median",
    "medoid",
    "vote",
    "cold",
    "oracle",
)  # plain members, or cheats


def planner() -> dict[str, str]:
    """Expectations at settings that the planner had not seen."""
    rows = rows_of("test-time-planner.csv")
    return {"inside": f"{sum(row['inside'] == 'True' for row in rows)} of {len(rows)}"}


def strategies() -> dict[str, str]:
    """Adaptive members, verifiers and warm starts, each against as many plain members."""
    rows = rows_of("test-time-strategies.csv")
    ways = [row for row in rows if not row["strategy"].startswith(MERGED)]
    won = [row for row in ways if row["verdict"] == "wins"]
    (best,) = won
    assert (best["task"], best["strategy"]) == ("flow", "photometric_half"), "the page names it"
    ends = sorted(abs(100 * float(best[name])) for name in ("difference_lo", "difference_hi"))
    gain = abs(100 * float(best["difference"]))
    return {
        "tried": str(len(ways)),
        "won": str(len(won)),
        "photometric": f"{gain:.1f} % [{ends[0]:.1f}, {ends[1]:.1f}]".replace("0.", "."),
        "images": best["images"],
    }
