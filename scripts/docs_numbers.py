"""Write the figures of README.md and docs/*.md from the files of docs/data and benchmarks/results.

    uv run python scripts/docs_numbers.py            # rewrite what stands between the marks
    uv run python scripts/docs_numbers.py --check    # exit status 1 if anything would change

A table, or a sentence that the data decide, stands between `<!-- numbers: NAME -->` and
`<!-- end -->`; a figure within a sentence between `<!-- n: PART.NAME -->` and `<!-- /n -->`.
`BLOCKS` and `FIGURES` say what they are made of: functions of `page_numbers`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from page_numbers import (  # noqa: E402
    chosen,
    common,
    default_run,
    films,
    forecasts,
    ladder,
    performance,
    reliability,
    test_time,
    training,
    transfer,
    twentieth,
)

BLOCK = re.compile(r"(<!-- numbers: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"(<!-- n: ([\w-]+)\.([\w.-]+) -->)[^\n]*?(<!-- /n -->)")

BLOCKS: dict[str, Callable[[], str]] = {
    "default": default_run.default,
    "world": default_run.world,
    "claims": default_run.claims,
    "proper": default_run.proper,
    "calls": default_run.calls,
    "members": default_run.members,
    "calibration": training.calibration,
    "cost": training.cost,
    "ablation": training.ablation,
    "reliability": reliability.reliability,
    "films": films.films,
    "floors": performance.floors,
    "recomputation": performance.recomputation,
    "gpu": performance.gpu,
    "ladder-gains": ladder.gains,
    "ladder-laws": ladder.laws,
    "ladder-forecast": ladder.forecast,
    "emergence-onset": ladder.onset,
    "ladder-twentieth": twentieth.twentieth,
    "forecasts-drawn": forecasts.drawn,
    "forecasts-ladder": forecasts.own_ladder,
    "forecasts-published": forecasts.published,
    "forecasts-denied": forecasts.denied,
    "planner-chosen": chosen.chosen,
    "refits": forecasts.refits,
    "transfer": transfer.transfer,
}
FIGURES: dict[str, Callable[[], Mapping[str, str]]] = {
    "ladder": ladder.named,
    "emergence": ladder.emergence,
    "films": films.named,
    "forecasts": forecasts.named,
    "strategies": test_time.strategies,
    "planner": test_time.planner,
}


@cache
def _figures(part: str) -> Mapping[str, str]:
    return FIGURES[part]()


def written(text: str) -> str:
    """A page with its figures made anew."""
    text = BLOCK.sub(lambda match: match[1] + BLOCKS[match[2]]() + match[3], text)
    return FIGURE.sub(lambda match: match[1] + _figures(match[2])[match[3]] + match[4], text)


def main(arguments: Sequence[str]) -> int:
    changed = []
    for page in (common.ROOT / "README.md", *sorted((common.ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        if (new := written(text)) != text:
            changed.append(page.name)
            if "--check" not in arguments:
                page.write_text(new, encoding="utf-8")
    print(
        f"{'would change' if '--check' in arguments else 'wrote'}: {', '.join(changed) or 'none'}"
    )
    return int(bool(changed) and "--check" in arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
