"""`stepsight predict`, then `evaluate --predictions` with no more flags; what is amiss is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepsight.cli import evaluate, predict
from stepsight.cli.predict import Args
from stepsight.evaluation.predictions.dump import write_facts

FACTS = {"task": "depth", "crop": "none", "working": None, "checkpoint": "digest"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Pictures and true depth of two folders, as people keep them."""
    root, draw = tmp_path_factory.mktemp("data") / "own", np.random.default_rng(0)
    for name in ("val/images/a", "val/images/deep/b"):
        for kind, pixels in (
            ("images", draw.integers(0, 256, (24, 32, 3)).astype(np.uint8)),
            ("depth", draw.integers(2000, 6000, (24, 32)).astype(np.uint16)),
        ):
            path = root / f"{name.replace('images', kind)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


@pytest.mark.parametrize("save", [None, "exr,picture", "png16"])
def test_predict_then_evaluate(run, tree, tmp_path, save, capsys):
    out = tmp_path / "out"
    flags = ["--checkpoint", run, "--task", "depth", "--out", out, "--nfe", "1", "--members", "1"]
    flags += ["--save", save] if save else []
    paths = [str(one) for one in [tree / "val" / "images", *flags]]
    assert predict.run(Args.parse(paths, "predict")) == 0
    capsys.readouterr()
    data = ["--data.name", "folder", "--data.root", tree, "--processes", 1]
    assert evaluate.main([str(one) for one in ["--predictions", out, *data]]) == 0
    (row,) = json.loads((out / "evaluation" / "results.json").read_text())
    assert row["task"] == "depth" and row["n"] == 2 and np.isfinite(row["metrics"]["abs_rel"])
    assert row["checkpoint"] == json.loads((out / "manifest.json").read_text())["tasks"]["depth"][
        "checkpoint"
    ]  # fmt: skip


@pytest.mark.parametrize("named", ["own", "own/images"])
def test_truth_beside_the_pictures_is_found(run, tmp_path, capsys, named):
    draw, out = np.random.default_rng(0), tmp_path / "out"
    for kind in ("images", "depth"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    for name in "ab":
        pixels = draw.integers(0, 256, (24, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"own/images/{name}.png")
        np.save(tmp_path / f"own/depth/{name}.npy", draw.uniform(2, 6, (24, 32)).astype("f4"))
    paths = [tmp_path / named, "--checkpoint", run, "--out", out, "--nfe", "1", "--members", "1"]
    assert predict.run(Args.parse([str(one) for one in paths], "predict")) == 0
    assert evaluate.main(["--predictions", str(out), "--processes", "1"]) == 0
    said = capsys.readouterr()
    assert f"truth found in {tmp_path / 'own'}," in said.out + said.err
    (row,) = json.loads((out / "evaluation" / "results.json").read_text())
    assert row["task"] == "depth" and row["n"] == 2
    (tmp_path / "own/depth").rename(tmp_path / "elsewhere")
    assert evaluate.main(["--predictions", str(out), "--processes", "1"]) == 2
    assert "needs --data.name" in capsys.readouterr().err


def test_predictions_of_several_tasks_need_a_word(tree, tmp_path, capsys):
    folder = tmp_path / "answers"
    folder.mkdir()
    data = ["--data.name", "folder", "--data.root", str(tree), "--processes", "1"]
    assert evaluate.main(["--predictions", str(folder), *data]) == 2
    assert "needs --task: no manifest says" in capsys.readouterr().err
    for task in ("depth", "flow"):
        write_facts(folder, task, FACTS | {"task": task, "formats": {}})
    assert evaluate.main(["--predictions", str(folder), *data]) == 2
    assert "needs --task, one of depth, flow" in capsys.readouterr().err


def score(tree: Path, folder: Path, *more: str) -> int:
    data = ["--data.name", "folder", "--data.root", str(tree), "--processes", "1"]
    return evaluate.main(["--predictions", str(folder), "--task", "depth", *data, *more])


def test_what_is_amiss_is_said_and_stands_beside_the_score(tree, tmp_path, capsys):
    for picture in sorted((tree / "val" / "depth").rglob("*.png")):
        path = tmp_path / picture.relative_to(tree / "val" / "depth").with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, 1000 / np.asarray(Image.open(picture)).astype(np.float32))
    assert score(tree, tmp_path, "--protocol", "depth-metric") == 0
    said = capsys.readouterr().out
    assert "would score AbsRel" in said and "as disparity" in said
    (row,) = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert "as disparity" in row["label"] and row["metrics"]["abs_rel"] > 0.5
    shutil.rmtree(tmp_path / "evaluation")
    assert score(tree, tmp_path, "--protocol", "depth-metric", "--given", "disparity") == 0
    (row,) = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert "disparity" not in (row["label"] or "") and row["metrics"]["abs_rel"] < 1e-5


@pytest.fixture(scope="module")
def ade20k(tmp_path_factory) -> Path:
    """Two scenes in the benchmark's layout, whose annotations are class + 1."""
    root, draw = tmp_path_factory.mktemp("ade"), np.random.default_rng(0)
    for name in ("ADE_val_1", "ADE_val_2"):
        labels = np.kron(draw.integers(1, 151, (4, 4)), np.ones((8, 8))).astype(np.uint8)
        pixels = draw.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        for folder, image, suffix in (("images", pixels, "jpg"), ("annotations", labels, "png")):
            (root / folder / "validation").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / folder / "validation" / f"{name}.{suffix}")
    return root


def classes(root: Path, folder: Path, out: Path, *more: str) -> int:
    data = ["--data.name", "ade20k", "--data.root", str(root), "--processes", "1"]
    flags = ["--predictions", str(folder), "--task", "semantic", "--out", str(out)]
    return evaluate.main([*flags, *data, *more])


def test_a_benchmarks_own_ids_are_taken_as_what_they_are(ade20k, tmp_path, capsys):
    toolkits = ade20k / "annotations" / "validation"
    assert classes(ade20k, toolkits, tmp_path / "toolkit") == 0
    assert "with ids from 1, as ade20k's toolkit writes them" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "toolkit" / "results.json").read_text())
    assert row["metrics"]["miou"] == 1 and row["options"]["codes"] == "1.."


def test_ids_that_are_off_by_one_are_refused_unless_that_is_meant(ade20k, tmp_path, capsys):
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    for path in (ade20k / "annotations" / "validation").iterdir():
        np.save(arrays / f"{path.stem}.npy", np.asarray(Image.open(path)).astype(np.int64) % 150)
    assert classes(ade20k, arrays, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert f"error: {arrays}: these predictions would score mIoU" in said and "--codes 1.." in said
    assert classes(ade20k, arrays, tmp_path / "out", "--codes", "classes") == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert row["metrics"]["miou"] < 0.1 and "with ids from 1" in row["label"]
