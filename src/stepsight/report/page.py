"""The report of a run: one HTML file that needs nothing else.

Its first screen answers: one picture a task, one sentence a task, and what compute bought. All else
waits in drawers whose lines say the answer. Every picture is inside the page, there are no scripts,
and a content security policy forbids the page to load anything. A run that is still working has the
same page, of what there is by now, which loads itself again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepsight.errors import command
from stepsight.measures import duration, number
from stepsight.report import figures, rendering
from stepsight.report.cost import cost_curve, learning_curve
from stepsight.report.rendering import Pictures
from stepsight.report.run_folder import RunFolder, read_run
from stepsight.report.scores import scores
from stepsight.report.sweep import page as sweep_page
from stepsight.report.verdict import final_results, next_steps, sentences, standing_text
from stepsight.scaling.sampling.wording import count

REFRESH = 15  # seconds between looks at a run that is still working
WAIT = "The run is still working; what to try next follows from its end."


def write_report(run_dir: Path, working: bool = False) -> Path:
    """Write `report.html` into a run folder and return its path.

    working: whether the run goes on, so that the page loads itself again. Raises `UserError` if
    there is no such folder, `DataFormatError` if a file in it is damaged.
    """
    return rendering.write_page(run_dir / "report.html", render(read_run(run_dir), working))


def render(run: RunFolder, working: bool = False) -> str:
    """The report of a run."""
    results, evaluate = final_results(run), command("evaluate", "--checkpoint", run.path)
    return rendering.render(
        "run",
        title=run.path.resolve().name,
        refresh=REFRESH if working else None,
        facts=_facts(run),
        panels=rendering.first_panels(run.sweep.path, run.path / "eval", run.path / "samples"),
        extremes=rendering.shown_panels(run.path / "eval", "extremes"),
        sentences=sentences(results, run.sweep),
        curve=cost_curve(run.sweep) or learning_curve(run.val),
        steps=[WAIT] if working else next_steps(run),
        config=run.config,
        environment=run.environment,
        commands=[*filter(None, [run.command]), evaluate, f"{evaluate} --sweep"],
        missing=_missing(run),
        standing_text=standing_text(run.results),
        sweep=sweep_page.gather(run.sweep),
        **scores(run.results),
        **_pictures(run),
        **_training(run),
    )


def _facts(run: RunFolder) -> list[str]:
    facts = [name for name in (run.model,) if name]
    if run.train:
        last = run.train[-1]
        of = f" of {run.images:,}" if (run.images or 0) > last["images_seen"] else ""
        facts += [f"{last['images_seen']:,}{of} images in {duration(last['seconds'])} of training"]
    known = {name: run.environment.get(name) for name in ("stepsight", "revision")}
    facts += [f"{name} {value}" for name, value in known.items() if value]
    if devices := run.environment.get("gpus", None):
        facts.append(", ".join(map(str, dict.fromkeys(devices))))
    return facts


def _missing(run: RunFolder) -> list[str]:
    parts = {
        "training steps": run.train,
        "validation": run.val,
        "samples": run.samples,
        "config.yaml": run.config,
    }
    return [name for name, found in parts.items() if not found]


def _pictures(run: RunFolder) -> dict[str, Any]:
    """The newest samples and some earlier ones, within one budget."""
    read = Pictures().read
    earlier, newest = run.samples[:-1], run.samples[-1:]
    spread = earlier[:: max(1, len(earlier) // 3)]
    return {
        "newest": [read(path, f"samples: {path.stem}") for path in newest],
        "earlier": [read(path, f"samples: {path.stem}") for path in spread],
    }


def _training(run: RunFolder) -> dict[str, Any]:
    """Curves of training and validation, and the use of experts."""
    rates = [row["images_per_s"] for row in run.train if row.get("images_per_s")]
    losses = [row["loss"] for row in run.train if row["loss"]]
    tasks = dict.fromkeys(row["task"] for row in run.val if row["metrics"])
    imbalance, maps = figures.usage_figures(run.train)
    fell = f"loss {number(losses[0])} to {number(losses[-1])}" if losses else "no loss"
    speed = f", {sum(rates) / len(rates):.0f} images/s on average" if rates else ""
    return {
        "faint": len(run.train) > 24,  # below, the trend is what was measured
        "losses": figures.training_curves(run.train) if run.train else None,
        "trained": f"{fell} over {count(len(run.train), 'line')} of the log{speed}",
        "validations": {task: figures.validation_curves(run.val, task) for task in tasks},
        "validated": count(len({row["images_seen"] for row in run.val}), "time"),
        "imbalance": imbalance,
        "expert_maps": maps,
    }
