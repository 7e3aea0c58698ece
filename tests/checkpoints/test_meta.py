"""What `stepsight.json` may hold, and what a stranger may do to a checkpoint: the error that a user
is meant to read, and no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stepsight import checkpoint
from stepsight.checkpoint import BACKBONE, CheckpointError, format, meta
from stepsight.config import from_dict
from stepsight.errors import UserError

CONFIG = from_dict({"model": {"name": "split-8"}})
SOUND: dict[str, Any] = {
    "step": 3,
    "images_seen": 48,
    "training_flops": 1e9,
    "inherited_flops": 0,
    "best": None,
    "losses": {"depth": 0.5},
    "loss_bins": {"depth": [0.5, float("nan"), None]},
    "parent": "",
    "sizes": {"depth": [16, 24]},
    "tasks": ["depth"],
    "samples": {"depth": 32},
    "run": "r",
    "revision": "abc",
    "norms": [1.0],
    "ledger": [{"what": "changed", "step": 3}],
    "rate": 0.5,
    "scale": 65536.0,
    "pending": {"loss": {"depth": [0.5]}, "usage": {"depth": [[1, 2], [0, 3]]}},
    "sampling": {"depth": {"nfe": 4, "members": 1, "temperature": 0.0, "views": "mirror"}},
    "calibration": {"depth": {"scale": 1.5, "n": 3}, "flow": {"scale": None}},
}


def test_what_runs_write_is_sound():
    meta.check_meta(SOUND, Path("stepsight.json"))
    meta.check_meta({"what a later version adds": [{}]}, Path("stepsight.json"))


WRONG: dict[str, list[Any]] = {
    "step": [True, -1, 1.0, "3", None, []],
    "images_seen": [-8, None, "x"],
    "training_flops": ["1", None, [], True],
    "best": ["x", [], False],
    "losses": [[], None, {"depth": "x"}, {"depth": {}}],
    "loss_bins": [{"depth": 1}, {"depth": ["x"]}, []],
    "sizes": [[], None, {"depth": 16}, {"depth": [16]}, {"depth": ["a", "b"]},
              {"depth": [16, 24, 8]}, {"depth": [0, 16]}, {"depth": [16, -16]},
              {"depth": [16.0, 16.0]}],
    "tasks": ["depth", {}, [1], None],
    "samples": [{"depth": "x"}, []],
    "run": [None, 3, []],
    "revision": [None, 3],
    "norms": [3, ["x"], {}, [float("nan")], [-1.0]],
    "rate": [0, -1.0, 1e308, float("nan"), 10**400, "1"],
    "scale": [float("inf"), -1, None],
    "pending": [[], {"loss": {"depth": "x"}}, {"loss": {"depth": ["x"]}}, {"usage": {"a": [1]}}],
    "ledger": [{}, ["x"]],
    "sampling": [[], {"depth": []}, {"depth": {}}, {"depth": {"nfe": "x"}}, {"depth": None}],
    "calibration": [[], {"depth": 1}, {"depth": {"scale": "x"}}, {"depth": {"scale": [1]}}],
    "held": ["step", [1], {}],
    "tensors": [[], {"a": 1}],
}  # fmt: skip


@pytest.mark.parametrize("key, value", [(key, one) for key, many in WRONG.items() for one in many])
def test_another_form_is_refused_with_its_key(key, value):
    with pytest.raises(CheckpointError, match=f"stepsight.json: .*{key}") as error:
        meta.check_meta(SOUND | {key: value}, Path("stepsight.json"))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    tensors = {BACKBONE: {"weight": torch.ones(3)}}
    return checkpoint.write(
        tmp_path_factory.mktemp("run"), 3, config=CONFIG, meta=SOUND, tensors=tensors
    )


TEXTS = [b"", b"[]", b"null", b"\xff\xfe", b"{", b"[" * 10**5, b"1" * 5000, b"\0", b"a: [", b"a: 1"]
TEXTS += [b"a: !!python/object/apply:os.system [ls]", b"&a [*a]", b"training: {lr: ${oc.env:HOME}}"]
TEXTS += [b"tasks: {depth: 3}", b"training: {batch: []}", b"diffusion:\n- x"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["config.yaml", "stepsight.json", "manifest.json", "COMPLETE"])
def test_any_text_in_a_table_is_one_line_for_the_user(template, tmp_path, name, text):
    path = shutil.copytree(template, tmp_path / template.name)
    (path / name).write_bytes(text)
    if name in ("config.yaml", "stepsight.json"):
        files = {"config.yaml", "stepsight.json", BACKBONE}
        format.seal(path, {one: format.entry(path / one) for one in files})
    elif name == "manifest.json":
        (path / "COMPLETE").write_text(f"{format.digest(path / name)}  manifest.json\n")
    with pytest.raises(UserError) as error:
        checkpoint.read(path)
    assert name in str(error.value) and "\n" not in str(error.value)


ENTRIES = [None, [], {}, {"bytes": "x", "sha256": ""}, {"bytes": 1}, {"bytes": True, "sha256": "0"}]


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_of_the_manifest_of_another_form_is_refused(template, tmp_path, entry):
    path = shutil.copytree(template, tmp_path / template.name)
    manifest = json.loads((path / "manifest.json").read_text())
    format.seal(path, manifest | {BACKBONE: entry})
    with pytest.raises(CheckpointError, match="manifest.json: the entry of backbone"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["", ".", "\0", "x" * 300, "backbone", "raw/\0", "COMPLETE/x"])
def test_odd_names_in_the_manifest_are_refused(template, tmp_path, name):
    path = shutil.copytree(template, tmp_path / template.name)
    manifest = json.loads((path / "manifest.json").read_text())
    format.seal(path, manifest | {name: manifest[BACKBONE]})
    with pytest.raises(CheckpointError):
        checkpoint.read(path)
