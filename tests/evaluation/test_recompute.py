"""The claims of a sweep, computed again from its per_sample.csv by a few lines that share no code
with the engine: whoever doubts a claim can check it from the file alone."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.jobs import ScoringPlan, jobs_of
from stepsight.evaluation.records import Identity
from stepsight.metrics import protocol as protocols
from stepsight.testtime.sweep import VariantScores, write_sweep
from stepsight.testtime.variants import Axes, Candidate, variants

WAY = ("task", "checkpoint", "size", "sampler", "spacing", "schedule", "merge")
DATA = Path(__file__).parents[2] / "docs" / "data"
HIGHER = {"iou", "iou_hidden", "miou", "edge_f1", "delta1", "pq", "pixel_accuracy", "below_3px"}
WEIGHTS = {"iou": "union", "iou_hidden": "union_hidden"}  # of pooled means; n of all others
Setting = tuple[float, str, int, int]  # temperature, views, NFE, members


def recompute(folder: Path) -> Iterator[tuple[dict[str, Any], tuple[float, float, float, int]]]:
    """Every claim of a sweep's folder beside its value, ends of the interval, and images."""
    samples = list(csv.DictReader((folder / "per_sample.csv").read_text().splitlines()))
    claims = json.loads((folder / "claims.json").read_text())
    for claim in claims:
        broken = {family(c) for c in claims if c["verdict"] == "broken sampler"}
        own = [row for row in samples if all(row[name] == str(claim[name]) for name in WAY)]
        best = claim["statement"] == "the best setting beats one call"
        own = [row for row in own if not best or family(row) not in broken]
        keys, rows = table(own, claim)
        base, other = (setting(claim[side]) for side in ("base", "other"))
        rivals = [at for at in rows if at[2] * at[3] == claim["cost"]]
        if best and len(rivals) > 1:
            half = np.array([sha256(key.encode()).digest()[0] % 2 == 1 for key in keys])
            sign = 1 if claim["metric"] in HIGHER else -1
            values = {at: sign * metric(rows[at][~half].sum(0)[None], claim)[0] for at in rivals}
            assert values[other] == max(values.values()), "the best on the other half"
            rows = {at: row[half] for at, row in rows.items()}
        yield claim, change(rows[base], rows[other], claim)


def change(base: np.ndarray, other: np.ndarray, claim: dict) -> tuple[float, float, float, int]:
    """(other - base) / |base| of rows of sums, paired by image."""
    n = len(base)
    drawn = np.random.default_rng(0).integers(n, size=(9999, n))
    before, after = (metric(rows.sum(0)[None], claim)[0] for rows in (base, other))
    draws = [metric(np.stack([rows[i].sum(0) for i in drawn]), claim) for rows in (base, other)]
    lo, hi = np.quantile(draws[1] - draws[0], [0.025, 0.975]) / abs(before)
    return (after - before) / abs(before), float(lo), float(hi), n


def table(samples: list[dict], claim: dict) -> tuple[list[str], dict[Setting, np.ndarray]]:
    """Rows of sums of every setting, of the images that all of them have."""
    by_setting: dict[Setting, dict[str, list[float]]] = {}
    for row in samples:
        by_setting.setdefault(setting(row), {})[row["key"]] = sums(row, claim)
    measured = {
        at: own for at, own in by_setting.items() if np.isfinite([*own.values()]).all(1).any()
    }
    keys = sorted(set.intersection(*(set(own) for own in measured.values())))
    rows = {at: np.array([own[key] for key in keys]) for at, own in measured.items()}
    known = np.all([np.isfinite(row).all(1) for row in rows.values()], axis=0)
    return [k for k, fine in zip(keys, known) if fine], {at: r[known] for at, r in rows.items()}


def sums(row: dict[str, str], claim: dict) -> list[float]:
    """What an image adds to the sums that the metric is made of."""
    name = claim["metric"]
    if claim["averaging"] == "per image":
        return [number(row.get(f"uncertainty.{name}") or row.get(name)), 1.0]
    if name == "miou":
        parts = ("intersection.", "union.")
        return [number(row[c]) for part in parts for c in row if c.startswith(part) and row[c]]
    weight = number(row[WEIGHTS.get(name, "n")])
    return [weight * number(row[name]) if weight else 0.0, weight]


def metric(rows: np.ndarray, claim: dict) -> np.ndarray:
    """Of sums "r k" -> "r"."""
    half = rows.shape[1] // 2
    with np.errstate(invalid="ignore"):
        quotient = rows[:, :half] / rows[:, half:]
    return np.nanmean(quotient, axis=1)


def setting(row: dict) -> Setting:
    return float(row["temperature"]), row["views"], int(row["nfe"]), int(row["members"])


def family(row: dict) -> tuple:
    return *(str(row[name]) for name in WAY), float(row["temperature"]), row["views"]


def number(text: str | None) -> float:
    return float(text or "nan")


def check(folder: Path) -> int:
    """Assert that every claim of a folder follows from its images; how many there are."""
    count = 0
    for claim, found in recompute(folder):
        told = [np.nan if claim[n] is None else claim[n] for n in ("value", "lo", "hi", "n")]
        assert found == pytest.approx(tuple(told), rel=1e-7, abs=1e-9, nan_ok=True), claim[
            "sentence"
        ]
        count += 1
    return count


IMAGES = 32
GRID = {0.0: [(nfe, 1) for nfe in (1, 4)], 1.0: [(n, m) for n in (1, 4) for m in (1, 2)]}
PROTOCOLS = {
    "depth": "depth-affine-log",
    "semantic": "semantic-miou",
    "amodal": "pix2gestalt-pooled",
}


def rows_of(task: str, temperature: float, nfe: int, members: int) -> tuple[dict, dict]:
    """Made-up rows of a setting, and of its uncertainty: better with calls and members, some images
    harder, heavier or empty."""
    draw = torch.Generator().manual_seed(100 * nfe + 10 * members + int(temperature))
    hard = torch.linspace(0.5, 1.5, IMAGES, dtype=torch.float64)
    luck = 1 + 0.05 * torch.randn(IMAGES, generator=draw, dtype=torch.float64)
    error = 0.2 * hard * luck * (1 - 0.04 * (nfe > 1) - 0.05 * (members > 1) + 0.02 * temperature)
    weight = torch.arange(IMAGES, dtype=torch.float64) % 7  # some have nothing to score
    empty = weight == 0
    stated = {
        "brier": torch.where(empty, torch.nan, error),
        "calibration": torch.ones(IMAGES, 9, 3),
    }
    stated = stated if members > 1 else {}
    if task == "depth":
        own = {
            "abs_rel": torch.where(empty, torch.nan, error),
            "edge_f1": 1 - error,
            "edges": weight,
        }
        own["edge_f1"][empty] = torch.nan
        return {"n": weight} | own, {}
    if task == "amodal":
        iou = torch.where(empty, torch.nan, 1 - error)
        own = {"iou": iou, "union": weight, "iou_hidden": iou / 2, "union_hidden": weight}
        return {"n": weight, "hidden": iou} | own, stated
    confusion = (
        torch.rand(IMAGES, 4, 4, generator=draw, dtype=torch.float64) * weight[:, None, None]
    )
    confusion += torch.eye(4)[None] * (weight * (3 - 8 * error))[:, None, None]
    confusion[:, 3], confusion[:, :, 3] = 0.0, 0.0  # a class that never occurs
    return {"n": confusion.sum((1, 2)), "confusion": confusion}, stated


def scored(lab, task: str, spacing: str = "trailing", worse: float = 1.0) -> list[VariantScores]:
    """A sweep of a task over temperatures, as one that was run would be."""
    candidate = Candidate("runs/a", lab.pipeline(statistics=False), WHO, {task: lab.source})
    plan = ScoringPlan([1, 4], [1, 2], IMAGES, "ddim", 0, 8)
    axes = Axes(["ddim"], [spacing], temperatures=[0.0, 1.0])
    found = []
    for variant in variants([candidate], plan, axes).kept:
        (job,) = jobs_of(variant.pipeline, candidate.sources, variant.plan)
        job = replace(job, protocols=[protocols.get(PROTOCOLS[task])])
        keys, indices = [f"scene {i}" for i in range(IMAGES)], [*range(IMAGES)]
        scores = Scores(task, "scenes", PROTOCOLS[task], keys, indices)
        temperature = variant.pipeline.diffusion.settings.temperature
        for at in GRID[temperature]:
            rows, stated = rows_of(task, temperature, *at)
            if "abs_rel" in rows and at[0] == 1:
                rows["abs_rel"] = rows["abs_rel"] * worse
            scores.settings[at], scores.seconds[at], scores.peak_gb[at] = rows, 0.01, 1.0
            if stated:
                scores.uncertainty[at] = stated
        scores.working = (16, 16)
        found.append(VariantScores(variant, job, scores, dict.fromkeys(scores.settings, 0.02)))
    return found


WHO = Identity("run-1", "c0ffee", "abc", 0, "hourglass-32", 1000, 1000, 5e12, 640, {})


@pytest.fixture(scope="module")
def folder(laboratory, tmp_path_factory) -> Path:
    """The folder of a made-up sweep: means over images, pooled quotients, a pooled confusion, and a
    spacing that is broken."""
    lab, path = laboratory(), tmp_path_factory.mktemp("sweep")
    every = [one for task in PROTOCOLS for one in scored(lab, task)]
    broken = scored(lab, "depth", "linspace", worse=3.0)
    write_sweep(path, every + broken, path / "records.jsonl")
    return path


def test_every_claim_follows_from_the_images(folder):
    claims = json.loads((folder / "claims.json").read_text())
    assert check(folder) == len(claims) > 40
    kinds = {(one["metric"], one["averaging"]) for one in claims}
    assert kinds == {
        ("abs_rel", "per image"),
        ("edge_f1", "per image"),
        ("miou", "pooled"),
        ("iou", "pooled"),
        ("brier", "per image"),
    }
    broken = {(one["spacing"], one["task"]) for one in claims if one["verdict"] == "broken sampler"}
    assert broken == {("linspace", "depth")}


def test_a_claim_that_was_tampered_with_is_found(folder, tmp_path):
    for name in ("per_sample.csv", "claims.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    claims = json.loads((tmp_path / "claims.json").read_text())
    claims[0]["lo"] += 1e-4
    (tmp_path / "claims.json").write_text(json.dumps(claims))
    with pytest.raises(AssertionError):
        check(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero-seed-0", "zero-seed-1", "noise-seed-0"])
def test_the_claims_that_the_pages_show_follow_from_the_images(name, tmp_path):
    """Those of the default run: its whole claims page."""
    if not (DATA / name / "claims.json").exists():
        pytest.skip(f"{DATA / name} is absent")
    (tmp_path / "claims.json").write_text((DATA / name / "claims.json").read_text())
    samples = gzip.decompress((DATA / name / "per_sample.csv.gz").read_bytes())
    (tmp_path / "per_sample.csv").write_bytes(samples)
    assert check(tmp_path) >= 20
