"""A small study: a picture generator in two sizes, what comes of the smaller one, and its laws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

STUDY: dict[str, Any] = {
    "name": "Small and large",
    "out": "runs/study",
    "stages": {
        "cache": {"kind": "latents", "config": "pre.yaml"},
        "pre": {
            "kind": "train",
            "config": "pre.yaml",
            "each": {"size": {"32x1": {"training.seed": 1}, "64x1": {}}},
            "set": {"model.name": "DiT-{size}/2", "training.latents": "{cache}"},
            "labels": {"of": ["pretraining"], "size": "{size}", "task": "image"},
        },
        "depth": {"kind": "train", "config": "depth.yaml", "from": "pre-32x1@0.5"},
        "mixed": {"kind": "upcycle", "from": "depth", "options": {"experts": 4}},
        "sweep": {"kind": "sweep", "from": ["dep*"], "options": {"nfe": "1,2", "members": "1"}},
        "laws": {"kind": "laws", "from": "pre-*"},
    },
    "miniature": {
        "scale": "1/100",
        "stages": {
            "vae": {"kind": "train", "config": "vae-tiny"},
            "pre": {"config": "small.yaml", "set": {"codec.path": "{vae}/vae"}},
            "mixed": {"options": {"top-k": 1}},
        },
    },
}
SCENES = {"scenes": {"size": [16, 16], "count": 64, "eval_count": 4}}
TRAINING = {"images": 1600, "batch": 8, "checkpoint_every": 400, "rows": {"start": 0.0}}
FILES: dict[str, dict[str, Any]] = {
    "pre.yaml": {
        "tasks": {"image": {"classes": 8}},
        "data": SCENES,
        "training": TRAINING | {"rows": {"start": 0.0, "rollout": 0.0, "denoise": 1.0}},
    },
    "depth.yaml": {
        "model": {"name": "DiT-32x1/2"},
        "tasks": {"depth": {}},
        "data": SCENES,
        "training": {"images": 800, "batch": 8},
    },
    "small.yaml": {"training": {"images": 160, "batch": 8, "checkpoint_every": 40}},
}


@pytest.fixture
def study_file(tmp_path, monkeypatch) -> Path:
    """The file of the study, with those of its stages, where the test is."""
    monkeypatch.chdir(tmp_path)
    for name, content in (FILES | {"study.yaml": STUDY}).items():
        (tmp_path / name).write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path / "study.yaml"
