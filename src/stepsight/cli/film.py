"""`stepsight film`: how much the depth of films flickers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepsight.cli.entry import at_least, output_folder
from stepsight.predicting.film.config import FilmSettings

if TYPE_CHECKING:
    from stepsight.predicting.film.scoring import FilmScores


@dataclass(frozen=True)
class Args:
    """Depth of moving procedural films, frame by frame and as `predict` answers films: flicker by
    the true flow, AbsRel beside it, and seconds."""

    checkpoint: str  # run folder or step folder
    films: int = 8  # that are scored
    frames: int = 64  # of each
    size: tuple[int, int] = (64, 64)  # height and width of the frames
    level: str = "standard"  # of the worlds: easy, standard, hard or shifted
    displacement: float | None = None  # multiplies their motion; default: the level's
    seed: int = 0  # of the worlds
    protocol: str = "temporal-affine-log"  # or temporal-metric
    nfe: int | None = None  # model calls; default, as for all below: as the run chose
    members: int | None = None  # of the ensemble
    temperature: float | None = None  # of the start noise
    views: str | None = None  # that further calls see
    film: FilmSettings = field(default_factory=FilmSettings)  # how frames follow one another
    out: Path | None = None  # folder for film.json, and for film.mp4, the last film side by side
    json: bool = False  # print JSON


def run(args: Args) -> int:
    for flag in ("films", "frames", "nfe", "members"):
        at_least(1, f"--{flag}", getattr(args, flag))
    out = output_folder(args.out) if args.out else None
    import torch

    from stepsight.data.config import ScenesSettings
    from stepsight.data.scenes.film import SceneFilm
    from stepsight.metrics.protocol import get
    from stepsight.pipeline.dense import DensePipeline
    from stepsight.predicting.film.scoring import score_films

    device = "cuda" if torch.cuda.is_available() else "cpu"
    protocol = get(args.protocol, "depth")
    worlds = ScenesSettings(
        level=args.level, size=args.size, seed=args.seed, displacement=args.displacement
    )
    films = [SceneFilm(worlds, number, args.frames) for number in range(args.films)]
    pipeline = DensePipeline.from_pretrained(args.checkpoint, device)
    names = ("nfe", "members", "temperature", "views")
    how = {name: value for name in names if (value := getattr(args, name)) is not None}
    scores = score_films(pipeline, films, protocol, args.film, **how)
    found = _found(scores, args)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "film.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        _write_film(out / "film.mp4", films[-1], scores)
    print(json.dumps(found) if args.json else _text(found))
    return 0


def _found(scores: FilmScores, args: Args) -> dict[str, Any]:
    from stepsight.predicting.film.scoring import SIDES

    metrics = [*scores.means[SIDES[1]]]
    ratios = {name: scores.ratio(name) for name in metrics}
    return {
        "protocol": scores.protocol.id,
        "films": args.films,
        "frames": args.frames,
        "means": {s: {name: scores.mean(s, name) for name in metrics} for s in scores.means},
        "ratios": {name: [x.value, x.lo, x.hi] for name, x in ratios.items()},
    }


def _text(found: dict[str, Any]) -> str:
    from stepsight.measures import measure, number
    from stepsight.predicting.film.scoring import EACH

    titles = {EACH: "AbsRel, each frame fitted", "seconds": "seconds a frame"}
    row = "{:<27}" + 3 * "{:>16}" + "{:>22}"
    lines = [f"{found['films']} films of {found['frames']} frames, {found['protocol']}"]
    lines.append(row.format("", *found["means"], "film / frames"))
    for name, (value, lo, hi) in found["ratios"].items():
        cells = [number(round(means[name], 9)) for means in found["means"].values()]
        interval = f"[{lo:.2f}, {hi:.2f}]" if found["films"] > 1 else "[-, -]"
        ratio = f"{value:.2f} {interval}"
        lines.append(row.format(titles.get(name) or measure(name).title, *cells, ratio))
    return "\n".join(lines)


def _write_film(path: Path, film: Any, scores: FilmScores) -> None:
    """Frames, truth, and the answers of both sides, fitted to it, over the truth's colours."""
    from fractions import Fraction

    import torch

    from stepsight.colours import colour_depth, depth_limits
    from stepsight.metrics.temporal import fitted_film
    from stepsight.predicting.film import FilmWriter
    from stepsight.predicting.film.scoring import SIDES, TRUTH

    samples = list(film)
    truth, valid = scores.values[TRUTH], torch.stack([one.depth_valid for one in samples])
    shown = [fitted_film(scores.values[s], truth, valid, scores.protocol).float() for s in SIDES]
    lo, hi = (float(limit.mean()) for limit in depth_limits(truth, valid))
    with FilmWriter(path, Fraction(12)) as writer:
        for number, sample in enumerate(samples):
            maps = [colour_depth(one[number][None], lo=lo, hi=hi)[0] for one in (truth, *shown)]
            writer.add(torch.cat([sample.image, *maps], dim=2))
