"""`evaluate.py --predictions`: files of any program, one dump under many protocols, one report."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from stepsight.cli import evaluate
from stepsight.data.decoding.images import read_depth_png, write_image, write_png16

SAMPLES = Path(
    os.environ.get("STEPSIGHT_SAMPLES", Path(__file__).parents[3] / "shared" / "samples")
)
FIVE = (
    "depth-affine-log",
    "marigold-depth",
    "marigold-disparity",
    "depth-anything",
    "pixel-perfect-depth",
)
FRAMES = ("ai_001_001/rgb_cam_00_fr0000", "ai_002_001/rgb_cam_00_fr0000")


@pytest.fixture
def hypersim(tmp_path) -> Path:
    """Two small frames in Marigold's layout; every depth from 2 to 6 m."""
    root, draw = tmp_path / "hypersim", np.random.default_rng(0)
    for name in FRAMES:
        (root / "val" / name).parent.mkdir(parents=True)
        image = torch.from_numpy(draw.integers(0, 256, (3, 24, 32))).to(torch.uint8)
        write_image(root / f"val/{name}.png", image)
        depth = torch.from_numpy(draw.integers(2000, 6000, (1, 24, 32))).to(torch.uint16)
        write_png16(root / f"val/{name.replace('rgb', 'depth_plane')}.png", depth)
    lines = (f"{name}.png {name.replace('rgb', 'depth_plane')}.png" for name in FRAMES)
    (root / "filename_list_val.txt").write_text("\n".join(lines))
    return root


@pytest.fixture
def noisy(hypersim, tmp_path) -> Path:
    """Predictions by Marigold's names: the truth, 10 % off."""
    folder, draw = tmp_path / "predictions", np.random.default_rng(1)
    for name in FRAMES:
        path = hypersim / f"val/{name.replace('rgb', 'depth_plane')}.png"
        depth = read_depth_png(path)[0].float().numpy() / 1000
        target = folder / f"{name.replace('rgb', 'pred')}.npy"
        target.parent.mkdir(parents=True)
        np.save(target, depth * draw.normal(1, 0.1, depth.shape).clip(0.5, 1.5))
    return folder


def score(predictions: Path, root: Path, out: Path, *more: object, names=FIVE) -> int:
    rules = [word for name in names for word in ("--protocol", name)]
    data = ["--data.name", "hypersim", "--data.root", root, "--data.split", "val"]
    flags = ["--predictions", predictions, *data, "--task", "depth", *rules, "--out", out]
    return evaluate.main([str(one) for one in [*flags, "--processes", 1, *more]])


def test_one_dump_under_five_protocols_in_one_report(hypersim, noisy, tmp_path, capsys):
    out = tmp_path / "out"
    assert score(noisy, hypersim, out) == 0
    printed = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert [row["protocol"].split("@")[0] for row in results] == list(FIVE)
    assert len({row["protocol"] for row in results}) == 5
    assert len({row["metrics"][row["metric"]] for row in results}) == 5
    for row in results:
        assert row["split"] == "val" and row["n"] == 2 and row["checkpoint"] == "predictions"
        assert "partial: 2 of" in row["label"] and row["baselines"].keys() == {"constant"}
        low, high = row["intervals"][row["metric"]]
        assert low <= row["metrics"][row["metric"]] <= high
        assert printed.count(row["protocol"]) == 2  # over its table, and among the differences
    assert "How far protocols differ" in printed and "not comparable" in printed
    page = (out / "evaluation.html").read_text()
    assert page.count("<table>") == 6 and "How far protocols differ" in page
    assert "data:image/png;base64," in page and "http" not in page.split("<body>")[1]
    with (out / "per_sample.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [f"val/{name}" for name in FRAMES] * 5
    assert (out / "panels/depth.json").exists() and not (out / "journal").exists()


def refused(capsys, *arguments, **options) -> str:
    assert score(*arguments, **options) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def test_missing_predictions_are_counted_and_partial_scores_say_so(
    hypersim, noisy, tmp_path, capsys
):
    next(noisy.rglob("*.npy")).unlink()
    out = tmp_path / "out"
    assert "1 of 2 images have no prediction" in refused(capsys, noisy, hypersim, out)
    assert not out.exists()
    assert score(noisy, hypersim, out, "--partial", names=FIVE[:1]) == 0
    (row,) = json.loads((out / "results.json").read_text())
    assert row["n"] == 1 and row["label"].startswith("partial: 1 of")


def test_predictions_that_cannot_be_scored_are_refused(hypersim, noisy, tmp_path, capsys):
    out, first = tmp_path / "out", next(noisy.rglob("*.npy"))
    np.save(first, np.full((24, 32), np.nan))
    assert f"{first}: 768 values are NaN" in refused(capsys, noisy, hypersim, out)
    np.save(first, np.ones((12, 16)))
    said = refused(capsys, noisy, hypersim, out)
    assert "12 x 16 pixels, where its image has 24 x 32" in said and "--resize" in said
    assert "flow-epe scores flow" in refused(capsys, noisy, hypersim, out, names=["flow-epe"])
    assert "KITTI's benchmark crop" in refused(
        capsys, noisy, hypersim, out, names=["marigold-kitti"]
    )
    for flag, value in (("--scale", 0), ("--scale", "nan"), ("--seed", 1)):
        assert flag in refused(capsys, noisy, hypersim, out, flag, value)
    assert "no such folder" in refused(capsys, tmp_path / "nowhere", hypersim, out)


def test_another_data_set_than_the_protocols_is_said(hypersim, noisy, tmp_path):
    out = tmp_path / "out"
    assert score(noisy, hypersim, out, names=["marigold-scannet", "marigold-hypersim"]) == 0
    rows = json.loads((out / "results.json").read_text())
    assert "not the data of this protocol (scannet)" in rows[0]["label"]
    assert rows[1]["label"].endswith(f"partial: 2 of {rows[1]['expected']}")


def test_a_checkpoint_saves_predictions_that_score_the_same(run, tmp_path):
    """The interface end to end: save, then score the files under the same protocols."""
    flags = ["--processes", "1", "--protocol", "depth-affine", "--protocol", "depth-affine-log"]
    data = ["--data.name", "scenes", "--data.images", "3"]
    direct, again = tmp_path / "direct", tmp_path / "again"
    arguments = ["--checkpoint", run, *data, *flags, "--out", direct, "--save-predictions"]
    assert evaluate.main([str(one) for one in arguments]) == 0
    folder = direct / "predictions" / "depth" / "none"
    arguments = ["--predictions", folder, "--task", "depth", *data, *flags, "--out", again]
    assert evaluate.main([str(one) for one in arguments]) == 0
    ours, theirs = (json.loads((one / "results.json").read_text()) for one in (direct, again))
    assert len(ours) == 2
    for one, other in zip(ours, theirs):
        for name in ("protocol", "metrics", "intervals", "uncertainty", "checkpoint", "members"):
            assert one[name] == other[name], name
        assert one["uncertainty"].keys() >= {"ause", "aurg", "coverage_90", "crps", "spread"}


def test_a_protocol_of_a_task_that_is_not_asked_for_is_refused(run, tmp_path, capsys):
    flags = ["--task", "depth", "--protocol", "raft-chairs", "--processes", "1"]
    assert evaluate.main(["--checkpoint", str(run), *flags, "--out", str(tmp_path / "out")]) == 2
    assert "raft-chairs scores flow, --task says depth" in capsys.readouterr().err


def test_a_sweep_has_one_protocol_a_task(run, tmp_path, capsys):
    flags = [
        "--checkpoint",
        str(run),
        "--sweep",
        "--processes",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    two = ["--protocol", "depth-affine", "--protocol", "depth-affine-log"]
    assert evaluate.main([*flags, *two]) == 2
    assert "one --protocol a task" in capsys.readouterr().err


REAL = SAMPLES / "hypersim"
needs_samples = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real samples at {REAL}")


def predict_real(folder: Path, predict) -> Path:
    """A prediction for each real frame, by Marigold's names."""
    for line in (REAL / "filename_list_val.txt").read_text().splitlines():
        image, depth = line.split()[:2]
        target = folder / image.replace("rgb_", "pred_").replace(".png", ".npy")
        target.parent.mkdir(parents=True)
        np.save(target, predict(read_depth_png(REAL / "val" / depth)[0].float() / 1000))
    return folder


@needs_samples
def test_the_floor_of_no_information_on_real_frames(tmp_path):
    """A constant becomes the masked mean by least squares, whose scores are known."""
    folder = predict_real(tmp_path / "constant", torch.ones_like)
    assert score(folder, REAL, tmp_path / "out", names=["marigold-hypersim"]) == 0
    with (tmp_path / "out" / "per_sample.csv").open() as file:
        rows = {row["key"].split("/")[1]: row for row in csv.DictReader(file)}
    for scene, abs_rel, delta in (("ai_015_004", 0.4588, 0.306), ("ai_044_003", 0.4293, 0.203)):
        assert float(rows[scene]["abs_rel"]) == pytest.approx(abs_rel, abs=5e-5)
        assert float(rows[scene]["delta1"]) == pytest.approx(delta, abs=5e-4)


@needs_samples
@pytest.mark.slow
def test_protocols_differ_on_real_frames(tmp_path):
    """Depth smoothed over 32 pixels, squared: wrong by more than a scale and a shift."""

    def blurred(depth: torch.Tensor) -> np.ndarray:
        small = torch.nn.functional.avg_pool2d(depth[None, None], 32)
        whole = torch.nn.functional.interpolate(small, depth.shape, mode="bilinear")
        return whole[0].clamp_min(0.1).square().numpy()

    folder = predict_real(tmp_path / "blurred", blurred)
    assert score(folder, REAL, tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    values = [row["metrics"]["abs_rel"] for row in found]
    assert len(set(values)) == 5 and max(values) > 1.5 * min(values)
