"""What two processes do together, for the tests to compare with one. Not a test itself.

Started by `test_distributed.py` as `ranks.py FOLDER` with a launcher's environment; every rank
writes what it found to FOLDER/rank-<n>.json.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import Lab

from stepsight import distributed
from stepsight.errors import UserError
from stepsight.evaluation.evaluator import Scores, score_source
from stepsight.models.config import ModelSettings
from stepsight.training.dense.tuning import tuned
from stepsight.training.folder import choose

DEEP = {"deep": 1.0, "noisy": 0.5}  # with four micro-batches some have rows of one kind only
WALKS = {"start": 0.5, "rollout": 0.5, "denoise": 0.5}  # each process has some of each


def losses(lab: Lab, folder: Path, **changes: Any) -> list[float]:
    """Eight batches of all tasks, with starts, walks and noised truth; with AdamW or Muon."""
    config = lab.config(**changes)
    lab.train(config, folder)
    return lab.losses(folder)


def started_losses(lab: Lab, folder: Path) -> list[float]:
    """Batches of a sharded run that starts from the weights of another."""
    short = {"images": 24, "rows": WALKS}
    parent = lab.fit(lab.config(("depth", "flow"), **short), folder / "parent")
    config = lab.config(("depth", "flow"), sharding="full", **short | {"images": 64})
    pupil = lab.fit(config, folder / "pupil", init_from=str(parent))
    distributed.join()  # a fit ends with leaving the others
    return lab.losses(pupil)


def expert_losses(lab: Lab, folder: Path, **changes: Any) -> list[float]:
    """Eight batches of a mixture of experts, evened with a weight that shows."""
    config = lab.config(("depth", "flow"), **lab.plain | changes)
    model = replace(config.model, name="DiT-Mi/8-4E2A", balance=1.0)
    lab.train(replace(config, model=model), folder)
    return lab.losses(folder)


def vae_losses(lab: Lab, folder: Path, **changes: Any) -> list[float]:
    """Eight batches of a VAE, of a task whose target is passes and of one whose is groups."""
    config = lab.config(("flow", "semantic"), **changes)
    config.tasks["flow"] = replace(config.tasks["flow"], components="separate")  # type: ignore[call-arg]
    lab.train(replace(config, model=ModelSettings("vae-tiny")), folder)
    return lab.losses(folder)


def plain(scores: Scores) -> dict[str, Any]:
    """Scores as JSON, without the clock."""
    tables = {f"{nfe}x{members}": rows for (nfe, members), rows in scores.settings.items()}
    tables |= {f"baseline {name}": rows for name, rows in scores.baselines.items()}
    tables["ceiling"] = scores.ceiling
    numbers = {
        table: {name: value.tolist() for name, value in rows.items()}
        for table, rows in tables.items()
    }
    return {"keys": scores.keys, "working": scores.working} | numbers


def scored(lab: Lab, images: int) -> dict[str, Any]:
    """Images of several sizes, an odd number of them, at two settings."""
    held = Lab.Source(count=7, seed="held", grids=((16, 16), (24, 32), (16, 16), (32, 16)))
    found = score_source(
        lab.pipeline(),
        held,
        "flow",
        protocol="flow-epe",
        indices=range(images),
        nfe=[1, 2],
        members=[1, 2],
        chunk_size=4,
    )
    return plain(found)


def chosen(lab: Lab) -> dict[str, Any]:
    """How two tasks are best answered, and the scales of their uncertainty."""
    with lab.serving():
        return tuned(lab.pipeline(lab.config(("depth", "flow"))))


def refused(folder: Path) -> str:
    """What a rank is told when the first one finds the folder taken."""
    try:
        distributed.agreed(lambda: choose(str(folder), "tiny", None, False))
    except UserError as error:
        return str(error)
    return ""


def everything(folder: Path) -> dict[str, Any]:
    lab = Lab()
    return {
        "adamw": losses(lab, folder / "adamw", optimizer="adamw"),
        "muon": losses(lab, folder / "muon", optimizer="muon"),
        "micro": losses(lab, folder / "micro", optimizer="muon", micro_batch="2"),
        "deep": losses(lab, folder / "deep", optimizer="adamw", rows=DEEP, micro_batch="1"),
        "sharded": losses(lab, folder / "sharded", optimizer="muon", rows=WALKS, sharding="full"),
        "started": started_losses(lab, folder / "started"),
        "experts": expert_losses(lab, folder / "experts", micro_batch="2"),
        "sharded experts": expert_losses(
            lab, folder / "sharded-experts", sharding="full", recompute="block", optimizer="adamw"
        ),
        "vae": vae_losses(lab, folder / "vae", optimizer="adamw"),
        "vae micro": vae_losses(lab, folder / "vae-micro", micro_batch="2"),
        "scores": scored(lab, 7),
        "one image": scored(lab, 1),
        "chosen": chosen(lab),
        "refused": refused(folder),
    }


if __name__ == "__main__":
    distributed.join()
    target = Path(sys.argv[1])
    found = everything(target)
    (target / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
    distributed.leave()
