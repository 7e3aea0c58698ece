"""A package of somebody else adds a task with a new truth, a source, a sampler and a backbone, one
file each: the code blocks of docs/tasks.md, made a package and run in processes of their own."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # a package is made, and trained with, again and again

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
BLOCK = re.compile(r"^ *```(?:python|toml|yaml)\n *# (\S+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CHANGES = {  # of the metric, in matting/task.py
    "negated": {
        '"near": Measure("within 0.1", "higher")': '"near": Measure("-near", "lower", best=-1.0)',
        '"near": masked.mean(error <= 0.1, valid)': '"near": -masked.mean(error <= 0.1, valid)',
    },
    "turned": {'"near": Measure("within 0.1", "higher")': '"near": Measure("near", "lower")'},
    "undeclared": {'"near": Measure("within 0.1", "higher"),': ""},
    "twice": {'"matte_rmse": Measure("matte RMSE", "lower"': '"iou": Measure("IoU", "lower"'},
}
COMMANDS = re.findall(r"^stepsight (.+)$", PAGE.read_text(), re.MULTILINE)  # the first one trains


@dataclass(frozen=True)
class Installed:
    """A folder with the package, its entry points, and whatever is written beside them."""

    folder: Path

    def run(self, code: str, expect: int = 0) -> str:
        """What a script says that can import the package; `commands` runs the command line."""
        head = """
            from pathlib import Path
            from stepsight.cli.main import main
            def commands(*lines):
                for line in lines:
                    assert main(line.split()) == 0, line
        """
        script = textwrap.dedent(head) + textwrap.dedent(code)
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=self.folder,
            env={"PYTHONPATH": str(self.folder), "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == expect, done.stdout[-2000:] + done.stderr[-6000:]
        return done.stdout + done.stderr

    def json(self, path: str) -> Any:
        return json.loads((self.folder / path).read_text())

    def losses(self, run: str) -> list[float]:
        lines = (self.folder / run / "metrics.jsonl").read_text().splitlines()
        return [row["loss"] for line in lines if (row := json.loads(line))["kind"] == "train"]

    def validations(self, run: str) -> dict[int, dict[str, Any]]:
        lines = (self.folder / run / "metrics.jsonl").read_text().splitlines()
        return {row["step"]: row for line in lines if (row := json.loads(line))["kind"] == "val"}

    def best(self, run: str) -> int:
        name = (self.folder / run / "checkpoints" / "best.txt").read_text()
        return int(name.strip().removeprefix("step-"))

    def marks(self, run: str) -> list[str]:
        """The verdicts of its report against the trivial predictors."""
        page = (self.folder / run / "report.html").read_text()
        return re.findall(r">\W*(not beaten|beaten|undecided)</span>\s*(\w+)", page)


def install(folder: Path, changes: dict[str, str]) -> Installed:
    files = dict(BLOCK.findall(PAGE.read_text()))
    files = {name: textwrap.dedent(text) for name, text in files.items()}
    for old, new in changes.items():
        assert old in files["matting/task.py"], old
        files["matting/task.py"] = files["matting/task.py"].replace(old, new)
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in rows.items())
        for group, rows in project["entry-points"].items()
    ]
    info = f"{project['name']}-{project['version']}.dist-info"
    files |= {
        "matting/__init__.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: matting\nVersion: 1.0\n",
        f"{info}/entry_points.txt": "\n".join(points),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Installed(folder)


@pytest.fixture(scope="module")
def matting(tmp_path_factory) -> Installed:
    """The package of the page, and its run."""
    installed = install(tmp_path_factory.mktemp("matting"), {})
    installed.run(f"commands({COMMANDS[0]!r})")
    return installed


@pytest.fixture(scope="module")
def negated(tmp_path_factory) -> Installed:
    """The same with its metric below 0, where lower is better."""
    installed = install(tmp_path_factory.mktemp("negated"), CHANGES["negated"])
    installed.run(f"commands({COMMANDS[0]!r})")
    return installed


def test_the_best_checkpoint_is_the_best(matting):
    near = {step: row["metrics"]["near"] for step, row in matting.validations("mattes").items()}
    assert len(set(near.values())) > 2
    assert near[matting.best("mattes")] == max(near.values())


def test_the_scores_are_pooled_and_compared_by_the_metric_of_the_task(matting):
    (result,) = matting.json("mattes/eval/results.json")
    assert result["metric"] == "near" and result["protocol"].startswith("matte-near@")
    assert {"near", "matte_rmse"} <= result["metrics"].keys() and result["uncertainty"] is not None
    lines = (matting.folder / "mattes/eval/per_sample.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","))) for line in lines[1:]]
    counts, near = ([float(row[name]) for row in rows] for name in ("n", "near"))
    pooled = sum(n * value for n, value in zip(counts, near)) / sum(counts)
    assert result["metrics"]["near"] == pytest.approx(pooled, rel=1e-6)
    assert matting.marks("mattes") and {mark for mark, _ in matting.marks("mattes")} == {"beaten"}


def test_bank_files_and_shards_train_alike_resized_and_mirrored(matting):
    """What is made of the samples of a source does not depend on where they were kept."""
    matting.run("""
        train = "train --config matte.yaml --training.evaluate False --run-dir"
        commands(
            f"{train} streamed --data.discs.stream True",
            "data shard discs --split train --out kept/train",
            "data shard discs --split eval --out kept/eval",
            f"{train} sharded --data.discs.stream True --data.discs.root kept",
            f"{train} banked --data.discs.root kept",
        )
    """)
    first = matting.losses("mattes")
    for other in ("streamed", "sharded", "banked"):
        assert matting.losses(other) == pytest.approx(first, rel=1e-4), other


def test_the_quantity_is_resized_mirrored_collated_and_stored_with_its_mask(matting):
    output = matting.run("""
        import torch
        from stepsight.data import open
        from stepsight.data.augment import flip
        from stepsight.data.cache.bank import Bank
        from stepsight.data.collate import collate
        from stepsight.data.resize import resize_sample
        source = open("discs", split="train")
        sample = source[3]
        assert torch.equal(sample.matte, flip(flip(sample)).matte)
        assert torch.equal(sample.matte.flip(-1), flip(sample).matte)
        assert torch.equal(sample.matte_valid.flip(-1), flip(sample).matte_valid)
        small = resize_sample(sample, (12, 10))
        batch = collate([small, flip(small)])
        assert batch.matte.shape == batch.matte_valid.shape == (2, 1, 12, 10)
        red = (batch.image[:, :1] + 1) / 2
        assert (red - batch.matte)[batch.matte_valid].abs().mean() < 0.05
        print("sound")
    """)
    assert output == "sound\n"


def test_predictions_of_other_programs_are_scored(matting):
    output = matting.run(f"commands(*{COMMANDS[1:]!r})")
    assert "within 0.1" in output and "matte-near@" in output
    matting.run("""
        from PIL import Image
        from stepsight.data import open
        for sample in open("discs", split="eval").samples(range(32)):
            path = Path("drawn", f"{sample.key}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((sample.matte[0].numpy() * 255).round().astype("uint8")).save(path)
        commands("evaluate --predictions drawn --task matte --data.name discs --data.split eval "
                 "--processes 1 --out perfect")
    """)
    (ours,), (again,) = (
        matting.json(f"{name}/results.json")[:1] for name in ("predicted", "scored")
    )
    assert again["metrics"]["near"] == pytest.approx(ours["metrics"]["near"], abs=1e-6)
    (perfect,) = matting.json("perfect/results.json")
    assert perfect["metrics"]["near"] == 1.0 and perfect["metrics"]["matte_rmse"] < 0.01


def test_the_sweep_is_of_the_metric_and_the_sampler(matting):
    claims = matting.json("mattes/sweep/claims.json")
    assert {claim["metric"] for claim in claims if claim["main"]} == {"near"}
    assert {claim["averaging"] for claim in claims if claim["metric"] == "near"} == {"pooled"}
    frontier = matting.json("mattes/sweep/frontier.json")
    assert frontier["matte"]["metric"] == "near"
    cells = (matting.folder / "mattes/sweep/sweep.csv").read_text()
    assert ",steady," in cells


def test_the_commands_list_what_was_added(matting):
    output = matting.run("""
        commands("protocols --task matte", "protocols", "steps --sampler steady --nfe 4",
                 "data show discs --split eval --out shown.png", "data check discs --split eval",
                 "data stats discs --split eval", "report mattes")
    """)
    assert output.count("matte-near@") >= 2
    assert "share of V where |p - a| <= 0.1; pooled over the set" in output
    assert "image-energy@" in output


def test_what_is_wrong_is_refused_with_the_choices_there_are(matting):
    output = matting.run("""
        assert main("train --config matte.yaml --model.name siev --run-dir no".split()) == 2
        assert main("train --config matte.yaml --diffusion.sampler stead --run-dir no".split()) == 2
        assert main("train --config matte.yaml --tasks.mate.weight 1 --run-dir no".split()) == 2
        assert main("train --config matte.yaml --evaluation.nfe 3 --run-dir no".split()) == 2
    """)
    for near in ("sieve", "steady", "matte"):
        assert near in output
    assert "Choose 2 or 4" in output and "Traceback" not in output


# ---------------------------------------------------------------------------- which way is better


def test_a_negated_metric_changes_no_verdict(matting, negated):
    """The same numbers below 0, where lower is better, mean the same everywhere."""
    for here, there in zip(*(one.validations("mattes").values() for one in (matting, negated))):
        assert there["metrics"]["near"] == pytest.approx(-here["metrics"]["near"])
        assert there["metrics"]["matte_rmse"] == pytest.approx(here["metrics"]["matte_rmse"])
    assert matting.best("mattes") == negated.best("mattes")
    assert matting.marks("mattes") == negated.marks("mattes") != []
    here, there = (one.json("mattes/sweep/claims.json") for one in (matting, negated))
    said = ("metric", "statement", "given", "verdict", "base", "other")
    assert [[row[k] for k in said] for row in here] == [[row[k] for k in said] for row in there]
    for one, other in zip(here, there):
        if one["metric"] == "near" and math.isfinite(one["value"]):
            assert other["value"] == pytest.approx(-one["value"])
            assert other["p"] == pytest.approx(one["p"])
    here, there = (one.json("mattes/sweep/frontier.json")["matte"] for one in (matting, negated))
    places = [[(p["nfe"], p["members"]) for p in points["points"]] for points in (here, there)]
    assert places[0] == places[1]
    gains = [[p["gain"] for p in points["points"][1:]] for points in (here, there)]
    assert gains[0] == pytest.approx(gains[1])


def test_the_other_direction_turns_every_verdict(matting, tmp_path):
    """What is read of the same run when lower is said to be better."""
    turned = install(tmp_path, CHANGES["turned"])
    run = turned.folder / "mattes"
    run.symlink_to(matting.folder / "mattes")
    code = """
        import json
        from stepsight.report.verdict import standings
        from stepsight.results import read_results
        from stepsight.training.dense.validation import best_score
        rows = [json.loads(line) for line in Path("mattes/metrics.jsonl").read_text().splitlines()]
        rows = {row["step"]: row for row in rows if row["kind"] == "val"}
        scores = {step: best_score([row]) for step, row in rows.items()}
        results = read_results(Path("mattes/eval/results.json"))
        marks = [standing.outcome for result in results for standing in standings(result)]
        print(json.dumps([min(scores, key=scores.get), max(scores, key=scores.get), marks]))
    """
    best, worst, marks = json.loads(matting.run(code))
    turned_best, turned_worst, turned_marks = json.loads(turned.run(code))
    assert best == matting.best("mattes")
    assert (turned_best, turned_worst) == (worst, best)
    assert set(marks) == {"beaten"} and set(turned_marks) == {"not beaten"}


def test_a_metric_that_nobody_declared_stops_the_training_before_it_begins(tmp_path):
    page = install(tmp_path, CHANGES["undeclared"])
    page.folder.joinpath("matting/task.py").write_text(
        page.folder.joinpath("matting/task.py")
        .read_text()
        .replace('averaging="pooled"', 'averaging="pooled", metrics=("near",)')
    )
    output = page.run("""
        assert main("train --config matte.yaml --run-dir mattes".split()) == 2
        assert not Path("mattes").exists()
    """)
    assert "task matte is scored by 'near', which nobody declares" in output


def test_two_directions_of_one_metric_are_refused(tmp_path):
    output = install(tmp_path, CHANGES["twice"]).run("""
        assert main("train --config matte.yaml --run-dir mattes".split()) == 2
    """)
    assert "the metric 'iou' has better 'lower' for task matte" in output
