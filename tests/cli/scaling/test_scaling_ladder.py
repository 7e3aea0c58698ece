"""`stepsight scaling ladder`: rungs, tuned rates, a forecast before the run it is of, failures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from stepsight import config as configuration
from stepsight.cli.main import main
from stepsight.scaling.ladders.forecast import read_forecasts
from stepsight.scaling.ladders.launch import read_status
from stepsight.training.config import TrainingSettings
from stepsight.training.planning.dry_run import describe

ROOT = Path(__file__).parents[3]
SIZES = {"DiT-32x1/8": 30_000, "DiT-32x2/8": 60_000, "DiT-64x2/8": 200_000, "DiT-64x4/8": 350_000}
HELD_OUT = {"model.name": "DiT-96x4/8", "training.images": 32768}
# Stands for train.py: a run whose loss follows a law, least where the learning rate is 0.002.
PROGRAM = """
import datetime, json, math, sys
from pathlib import Path
import yaml
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
config, run = yaml.safe_load(Path(flags["--config"]).read_text()), Path(flags["--run-dir"])
settings, name = config["training"], config["model"]["name"]
known = json.loads((Path(__file__).parent / "params.json").read_text())
if name not in known:
    sys.exit("error: out of memory")
params, images = known[name], settings["images"]
off = math.log(settings.get("lr", 0.003) / 0.002) ** 2
noise = 0.01 * math.sin(params + images)
loss = (0.1 + 40 * params**-0.5 + 30 * images**-0.6) * (1 + off + noise)
run.mkdir(parents=True, exist_ok=True)
line = {"kind": "val", "images_seen": images, "loss": loss}
(run / "metrics.jsonl").write_text(json.dumps(line) + "\\n")
if settings.get("evaluate", True):
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = dict(run=run.name, config="c", revision="r", seed=0, model=name, params_total=params,
        params_active=params, training_flops=6.0 * params * images, images_seen=images,
        task="depth", dataset="scenes", protocol="p", sampler="ddim", nfe=1, members=1,
        inference_flops=1.0, metric="abs_rel", value=2 * loss, images=8, lower_is_better=True,
        loss=loss, time=now, schema=2)
    (run / "records.jsonl").write_text(json.dumps(record) + "\\n")
"""


@pytest.fixture
def ladder(tmp_path, monkeypatch) -> Path:
    """The file of a ladder, in a folder with its training program."""
    monkeypatch.chdir(tmp_path)
    held_out = {"model": {"name": HELD_OUT["model.name"]}, "tasks": {"depth": {}}}
    params = describe(configuration.from_dict(held_out))["params_active"]
    (tmp_path / "params.json").write_text(json.dumps(SIZES | {HELD_OUT["model.name"]: params}))
    (tmp_path / "train.py").write_text(PROGRAM)
    told = {
        "out": "out",
        "config": {
            "tasks": {"depth": {}},
            "training": {"lr": 0.004},
            "evaluation": {"sweep": False},
        },
        "stages": {
            "train": {
                "tune": {"by": "model.name", "factors": [0.5, 1], "images": 1024},
                "grid": [{"model.name": [*SIZES], "training.images": [2048, 4096, 8192]}],
            }
        },
        "held_out": [HELD_OUT],
    }
    file = tmp_path / "ladder.yaml"
    file.write_text(yaml.safe_dump(told, sort_keys=False))
    return file


def climb(*flags: object) -> int:
    return main(["scaling", "ladder", *map(str, flags)])


def test_a_held_out_run_is_forecast_and_then_made(ladder, capsys):
    assert climb("--config", ladder, "--held-out") == 0
    said = capsys.readouterr().out
    assert "DiT-32x2/8: learning rates x 0.5, at an end of the factors tried: widen" in said
    made = read_forecasts("out/forecasts.jsonl")
    assert [one.metric for one in made] == ["loss", "abs_rel"] and made[0].points == 12
    assert said.count("inside") == 2 and "depth loss forecast" in said
    status = read_status(Path("out"))
    assert len(status) == 4 * 2 + 12 + 1 and {row["state"] for row in status.values()} == {"done"}
    assert status["train/DiT-32x2-8_images-2048"]["factor"] == 0.5
    assert "stepsight scaling report out --out out/report" in said


def test_a_forecast_can_be_published_before_the_run(ladder, capsys):
    assert climb("--config", ladder, "--forecast") == 0
    said = capsys.readouterr().out
    made = read_forecasts("out/forecasts.jsonl")
    assert said.count("waits for its run") == len(made) > 0 and made[0].made in said
    assert not Path("out/held-out").exists()
    assert climb("--config", ladder, "--held-out") == 0
    assert read_forecasts("out/forecasts.jsonl") == made
    assert capsys.readouterr().out.count("inside") == len(made)


def test_a_run_without_records_that_was_made_before_is_not_forecast(ladder, capsys):
    run = Path("out/held-out/DiT-96x4-8_images-32768")
    run.mkdir(parents=True)
    assert climb("--config", ladder, "--forecast") == 2
    assert f"{run} has been run, and was not forecast. Hold out" in capsys.readouterr().err
    assert not Path("out/forecasts.jsonl").exists()


def test_failed_rungs_are_listed_and_the_rest_is_done(ladder, capsys):
    params = json.loads(Path("params.json").read_text())
    del params["DiT-64x4/8"]
    Path("params.json").write_text(json.dumps(params))
    assert climb("--config", ladder, "--held-out", "--at-once", 3) == 1
    told = capsys.readouterr()
    assert told.err.count("failed: ") == 2 + 3 and "error: out of memory" in told.err
    assert "forecast skipped: some runs of the ladder failed" in told.err
    assert not Path("out/forecasts.jsonl").exists()  # no forecast from half a ladder
    states = [row["state"] for row in read_status(Path("out")).values()]
    assert states.count("done") == 3 * 2 + 9


def test_a_factor_that_fails_is_one_not_chosen(ladder, capsys):
    program = Path("train.py").read_text()
    burst = 'if settings.get("lr") == 0.004 and not settings.get("evaluate", True):\n'
    burst += '    sys.exit("error: loss is nan")\nrun.mkdir('
    Path("train.py").write_text(program.replace("run.mkdir(", burst, 1))
    assert climb("--config", ladder, "--held-out") == 0
    told = capsys.readouterr().out
    assert told.count("failed tune-train/") == 4 and told.count("learning rates x 0.5") == 4
    assert read_forecasts("out/forecasts.jsonl")


def test_rungs_of_a_failed_parent_are_left_out(ladder, capsys):
    told = yaml.safe_load(ladder.read_text())
    grid = told["stages"]["train"]["grid"][0] | {"training.images": [2048]}
    fine = {"grid": [{"data.scenes.count": [16, 64]}]}
    stages = {"train": {"grid": [grid]}, "fine": fine}
    ladder.write_text(yaml.safe_dump(told | {"stages": stages}, sort_keys=False))
    params = json.loads(Path("params.json").read_text())
    del params["DiT-64x4/8"]
    Path("params.json").write_text(json.dumps(params))
    assert climb("--config", ladder) == 1
    states = {name: row["state"] for name, row in read_status(Path("out")).items()}
    assert [name for name, state in states.items() if state == "left out"] == [
        "fine/DiT-64x4-8_images-2048+count-16",
        "fine/DiT-64x4-8_images-2048+count-64",
    ]
    assert "train/DiT-64x4-8_images-2048 failed" in capsys.readouterr().err


def test_a_changed_ladder_is_refused(ladder, capsys):
    assert climb("--config", ladder) == 0
    run = Path("out/train/DiT-32x2-8_images-2048")
    config = next(Path("out/configs").glob("train--DiT-32x2-8_images-2048.yaml"))
    (run / "config.yaml").write_text(config.read_text())  # as train.py writes it
    assert climb("--config", ladder) == 0
    told = yaml.safe_load(ladder.read_text())
    usual = TrainingSettings().batch
    told["config"]["training"]["batch"] = usual // 2
    ladder.write_text(yaml.safe_dump(told, sort_keys=False))
    capsys.readouterr()
    assert climb("--config", ladder) == 2
    error = capsys.readouterr().err
    assert f"{run} was run with other settings: training.batch {usual} -> {usual // 2}" in error


def test_a_dry_run_lists_every_rung_and_starts_nothing(ladder, capsys):
    assert climb("--config", ladder, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 8 + 12 + 1 + 2 and "21 runs" in lines[-2]
    ladder_of_target = re.fullmatch(
        r"the ladder: (\S+) PFLOP .*: (\S+)% of the (\S+) that are held out", lines[-1]
    )
    assert ladder_of_target is not None
    spent, share, target = map(float, ladder_of_target.groups())
    assert share == pytest.approx(100 * spent / target, rel=1e-2)
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["ladder-depth", "ladder-emergence"])
def test_shipped_ladders_describe_themselves(name, capsys, tmp_path, monkeypatch):
    path = ROOT / "configs" / f"{name}.yaml"
    monkeypatch.chdir(tmp_path)
    for start in yaml.safe_load(path.read_text())["stages"].get("finetune", {}).get("from", []):
        (tmp_path / start).mkdir(parents=True)
        (tmp_path / start / "config.yaml").write_text("model: {name: DiT-64x4/8}")
    assert climb("--config", path, "--dry-run") == 0
    assert "PFLOP" in capsys.readouterr().out
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# uv run stepsight scaling ladder --config configs/{name}.yaml")


@pytest.mark.slow
def test_the_small_ladder_costs_a_twentieth_of_its_target(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert climb("--config", ROOT / "configs/ladder-twentieth.yaml", "--dry-run") == 0
    share = re.search(r": ([\d.]+)% of the \S+ that are held out", capsys.readouterr().out)
    assert share is not None and float(share[1]) < 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config", "none.yaml"], "none.yaml not found"),
        (["--config", "ladder.yaml", "--at-once", "0"], "--at-once 0: must be at least 1"),
        (["--config", "ladder.yaml", "--program", "gone.py"], "gone.py does not exist"),
        (["--config", "bad.yaml"], "bad.yaml: train/count-8: 'data.scens' unknown"),
        (["--config", "alone.yaml", "--held-out"], "lists no runs"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(ladder, flags, message, capsys):
    stage = {"train": {"grid": [{"data.scens.count": 8}]}}
    Path("bad.yaml").write_text(yaml.safe_dump({"out": "out", "stages": stage}))
    stage = {"train": {"grid": [{"data.scenes.count": 8}]}}
    Path("alone.yaml").write_text(yaml.safe_dump({"out": "out", "stages": stage}))
    assert climb(*flags) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error
    assert not Path("out").exists()
