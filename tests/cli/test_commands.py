"""What the doors do when all is well, on a model that has learned nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from stepsight.cli import evaluate, main, train
from stepsight.data.decoding.images import read_image
from stepsight.pipeline.dense import DensePipeline
from stepsight.scaling.sampling.sweeps import read_sweep
from stepsight.training.config import TrainingSettings


def test_predict_writes_what_the_pipeline_answers(run, picture, tmp_path, capsys):
    image, out = picture("frame.v1.png"), tmp_path / "deep" / "out"
    arguments = ["predict", image, "--checkpoint", run, "--out", out, "--nfe", 2, "--members", 3]
    assert main.main([str(one) for one in arguments]) == 0
    names = {"frame.v1-depth.png", "frame.v1-depth.npy", "frame.v1-depth-uncertainty.npy"}
    names |= {"manifest.json", "predicted.jsonl"}
    assert {path.name for path in out.iterdir()} == names
    assert "frame.v1-depth.png" in capsys.readouterr().out
    live = DensePipeline.from_pretrained(run)(image, "depth", nfe=2, members=3, key=image.name)
    assert live.uncertainty is not None and live.picture is not None
    values = np.load(out / "frame.v1-depth.npy")
    assert values.shape == (1, 19, 30)
    np.testing.assert_array_equal(values, live.values[0].numpy())
    spread = np.load(out / "frame.v1-depth-uncertainty.npy")
    np.testing.assert_array_equal(spread, live.uncertainty[0].numpy())
    shown = read_image(out / "frame.v1-depth.png")
    np.testing.assert_array_equal(shown, live.picture[0].numpy())


def test_predict_keeps_pictures_apart_and_leaves_out_what_one_member_cannot_say(run, picture):
    images = [str(picture(name)) for name in ("f.01.png", "f.002.png")]  # of other pixels
    flags = ["--checkpoint", str(run), "--out", "o", "--nfe", "1", "--members", "1"]
    assert main.main(["predict", *images, *flags]) == 0
    out = run.parent / "o"
    assert {path.name for path in out.glob("f.*")} == {
        f"f.{i}-depth.{kind}" for i in ("01", "002") for kind in ("png", "npy")
    }
    first, second = (np.load(out / f"f.{i}-depth.npy") for i in ("01", "002"))
    assert not np.array_equal(first, second)


def test_a_picture_is_answered_alike_whatever_it_is_called(run, picture):
    """Also from noise, which follows from its pixels."""
    images = [str(picture(name)) for name in ("one.png", "two.png")]
    flags = ["--checkpoint", str(run), "--out", "o", "--nfe", "1", "--members", "2"]
    assert main.main(["predict", *images, *flags]) == 0
    first, second = (np.load(run.parent / "o" / f"{name}-depth.npy") for name in ("one", "two"))
    np.testing.assert_array_equal(first, second)


def test_predict_takes_a_second_frame_and_a_mask(run, picture):
    image = str(picture())
    flags = ["--checkpoint", str(run), "--out", "o", "--nfe", "1", "--members", "1"]
    assert main.main(["predict", image, "--task", "flow", "--second", image, *flags]) == 0
    mask = np.zeros((19, 30), np.uint8)
    mask[5:15, 4:20] = 255
    Image.fromarray(mask).save("mask.png")
    assert main.main(["predict", image, "--task", "amodal", "--mask", "mask.png", *flags]) == 0
    assert np.load(run.parent / "o" / "a-flow.npy").shape == (2, 19, 30)
    mask = np.load(run.parent / "o" / "a-amodal.npy")
    assert mask.shape == (1, 19, 30) and 0 <= mask.min() and mask.max() <= 1


def test_evaluate_writes_results_beside_the_run(run, capsys):
    arguments = ["--checkpoint", str(run), "--processes", "1", "--task", "depth", "--task", "flow"]
    assert evaluate.main([*arguments, "--nfe", "1", "--members", "2", "--data.images", "2"]) == 0
    results = json.loads((run / "eval" / "results.json").read_text())
    assert [one["task"] for one in results] == ["depth", "flow"]
    for one in results:
        assert (one["nfe"], one["members"], one["n"], one["sampler"]) == (1, 2, 2, "ddim")
        assert one["baselines"] and np.isfinite(list(one["metrics"].values())).all()
    records = (run / "records.jsonl").read_text().splitlines()
    assert {json.loads(one)["task"] for one in records} == {one["task"] for one in results}
    assert json.loads(records[0])["nfe"] == 1
    assert "written to" in capsys.readouterr().out


def test_evaluate_writes_elsewhere_when_told(run, tmp_path):
    out = tmp_path / "elsewhere"
    arguments = ["--checkpoint", run, "--processes", 1, "--task", "amodal", "--out", out]
    arguments += ["--nfe", 1, "--members", 1]
    assert evaluate.main([str(one) for one in arguments]) == 0
    assert (out / "results.json").exists() and (out / "records.jsonl").exists()
    assert not (run / "eval").exists() and not (run / "records.jsonl").exists()


def test_a_sweep_scores_the_whole_grid(run):
    arguments = ["--checkpoint", str(run), "--processes", "1", "--task", "flow", "--sweep"]
    assert evaluate.main([*arguments, "--nfe", "2,1,2", "--members", "1,3"]) == 0
    records = [json.loads(one) for one in (run / "records.jsonl").read_text().splitlines()]
    found = {(one["nfe"], one["members"]) for one in records}
    assert found == {(1, 1), (1, 3), (2, 1), (2, 3)}
    assert (run / "sweep" / "sweep.csv").exists()


def test_a_printed_config_reads_as_the_same_run(capsys, tmp_path):
    flags = ["--data.scenes.size", "16", "24", "--tasks.normals.weight", "2", "--model.gate-init=0"]
    assert train.main(["--print-config", *flags]) == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    again, flagged = (train.Args.parse(a, "") for a in (["--config", str(file)], flags))
    assert again.config == flagged.config


def test_a_sweep_of_starts_and_views_has_what_can_be(run):
    """From zeros all members are one; views are for one member, and a single call sees one."""
    arguments = ["--checkpoint", str(run), "--processes", "1", "--task", "flow", "--sweep"]
    flags = ["--temperature", "0,1", "--views", "none,mirror", "--nfe", "1,2", "--members", "1,2"]
    assert evaluate.main([*arguments, *flags, "--data.images", "2"]) == 0
    cells = [cell for cell in read_sweep(run / "sweep" / "sweep.csv") if cell.metric == "epe"]
    found = {(one.temperature, one.views): set[tuple[int, int]]() for one in cells}
    for one in cells:
        found[one.temperature, one.views].add((one.nfe, one.members))
    assert found.keys() == {(t, views) for t in (0.0, 1.0) for views in ("none", "mirror")}
    assert found[0.0, "none"] == {(1, 1), (2, 1)} and found[0.0, "mirror"] <= {(1, 1), (2, 1)}
    assert found[1.0, "none"] == {(1, 1), (1, 2), (2, 1), (2, 2)}
    by = {(one.temperature, one.views, one.nfe, one.members): one.value for one in cells}
    assert len({by[0.0, "none", 2, 1], by[0.0, "mirror", 2, 1], by[1.0, "none", 2, 1]}) == 3


def test_an_evaluation_is_told_where_it_started_and_what_calls_saw(run, tmp_path):
    arguments = ["--checkpoint", str(run), "--processes", "1", "--task", "flow"]
    flags = ["--temperature", "0", "--views", "mirror", "--nfe", "2", "--members", "1"]
    values = {}
    for name, own in {"usual": flags[4:], "views": flags}.items():
        folder = ["--out", str(tmp_path / name), "--data.images", "2"]
        assert evaluate.main([*arguments, *own, *folder]) == 0
        (values[name],) = json.loads((tmp_path / name / "results.json").read_text())
    assert values["views"]["temperature"] == 0 and values["views"]["views"] == "mirror"
    (line, *_) = (tmp_path / "views" / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["sampler"] == "ddim T 0 mirror views"


@pytest.mark.parametrize("name", ["split-32", "DiT-S/2"])
def test_a_dry_run_tells_what_a_run_would_be_and_writes_nothing(name, capsys, tmp_path):
    assert train.main(["--dry-run", "--model.name", name]) == 0
    text = capsys.readouterr().out
    assert train.main(["--dry-run", "--json", "--model.name", name]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == name and f"{found['params_total']:,}" in text
    images, batch = TrainingSettings().images, TrainingSettings().batch
    assert found["input"] == [batch, 13, 64, 64] and found["output"] == [batch, 7, 64, 64]
    assert found["flops_train"] == images * found["flops_train_per_image"] > 0
    assert list(tmp_path.iterdir()) == []


def test_data_show_draws_a_grid(capsys, tmp_path):
    arguments = ["data", "show", "--size", "16", "24", "--images", "2", "--out", "shown.png"]
    assert main.main(arguments) == 0
    assert "shown.png" in capsys.readouterr().out
    height, width = read_image(tmp_path / "shown.png").shape[1:]
    assert width > 7 * 24 and height > 2 * 16


def test_data_stats_are_numbers_under_a_protocol(capsys, monkeypatch):
    monkeypatch.setattr("stepsight.evaluation.bounds.STATISTICS_IMAGES", 8)
    arguments = ["data", "stats", "--level", "easy", "--size", "16", "16", "--images", "4"]
    assert main.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 4
    assert found["tasks"].keys() == {"depth", "flow", "amodal", "semantic", "normals", "image"}
    assert found["tasks"]["flow"]["baselines"]["zero_flow"]["epe"] > 0
    assert "@" in found["tasks"]["depth"]["protocol"]
    assert main.main(arguments) == 0
    assert "zero_flow" in capsys.readouterr().out
