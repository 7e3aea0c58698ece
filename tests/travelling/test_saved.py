"""What travels comes back with equal bits, and says what it is."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from stepsight import checkpoint
from stepsight.checkpoint import BACKBONE, PACKAGED, CheckpointError
from stepsight.cli.main import main
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import generator


def picture(size: int = 32) -> Tensor:
    return torch.rand(3, size, size, generator=generator("picture"))


def answer(pipeline: DensePipeline) -> Tensor:
    return pipeline(picture(), task="depth", members=2).values


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The packaged checkpoint as a run has it: in a folder of steps."""
    folder = tmp_path_factory.mktemp("run") / "default-0001"
    shutil.copytree(PACKAGED, folder / "checkpoints" / "step-000500")
    meta = json.loads((PACKAGED / "stepsight.json").read_text())
    step = folder / "checkpoints" / "step-000500"
    for name in ("eval", "sweep"):
        (step / name).rename(folder / name)
    checkpoint.amend(step, alone=False)
    assert checkpoint.read(folder).home == folder and meta["alone"]
    return folder


@pytest.fixture(scope="module")
def opened(run) -> DensePipeline:
    return DensePipeline.from_pretrained(run)


@pytest.mark.parametrize("name", ["saved", "saved.tar", "moved"])
def test_it_answers_with_equal_bits(name, opened, tmp_path):
    place = opened.save_pretrained(tmp_path / ("saved" if name == "moved" else name))
    if name == "moved":
        place = place.rename(tmp_path / "step-000007")
    again = DensePipeline.from_pretrained(place)
    assert torch.equal(answer(again), answer(opened))
    assert (again.name, again.chosen, again.fitted) == (opened.name, opened.chosen, opened.fitted)
    assert again.plan("depth", "4nfe").nfe == opened.plan("depth", "4nfe").nfe
    assert again.save_pretrained(tmp_path / "further").is_dir()
    assert checkpoint.read(tmp_path / "further").digest() == opened.name


def test_the_same_tar_is_made_twice(opened, tmp_path):
    tars = [opened.save_pretrained(tmp_path / f"{n}.tar").read_bytes() for n in range(2)]
    assert tars[0] == tars[1]


def test_a_tar_of_a_run_opens_too(run, opened, tmp_path):
    with tarfile.open(tmp_path / "run.tar.gz", "w:gz") as packed:
        packed.add(run, "default-0001")
    assert DensePipeline.from_pretrained(tmp_path / "run.tar.gz").name == opened.name


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_what_is_no_tar_is_refused(content, tmp_path):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.tar: not a checkpoint in a tar \([^\n]*\)"):
        DensePipeline.from_pretrained(tmp_path / "x.tar")


@pytest.mark.parametrize("name", ["saved.tar.gz", "saved.zip", "saved.safetensors"])
def test_no_folder_is_made_where_another_kind_of_file_is_asked_for(name, opened, tmp_path):
    with pytest.raises(UserError, match="a file that ends in .tar"):
        opened.save_pretrained(tmp_path / name)
    assert not [*tmp_path.iterdir()]


def test_a_tar_that_is_cut_off_is_refused(opened, tmp_path):
    whole = opened.save_pretrained(tmp_path / "whole.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError):
        DensePipeline.from_pretrained(tmp_path / "cut.tar")


def test_nothing_is_overwritten_and_nothing_is_left(opened, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    (tmp_path / "there.tar").write_text("mine")
    for name in ("there", "there.tar"):
        with pytest.raises(UserError, match="not empty"):
            opened.save_pretrained(tmp_path / name)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["file", "there", "there.tar"]


def test_weights_that_are_rounded_for_use_are_saved_as_they_were(run, opened, tmp_path):
    rounded = DensePipeline.from_pretrained(run, dtype="bfloat16")
    saved = checkpoint.read(rounded.save_pretrained(tmp_path / "saved"))
    assert saved.digest() == opened.name
    next(p for p in rounded.net.parameters() if p.dtype == torch.bfloat16).add_(1)
    with pytest.raises(UserError, match="rounded to bf16"):
        rounded.save_pretrained(tmp_path / "changed")


def test_weights_that_were_changed_are_saved_changed_and_without_scores(run, tmp_path):
    changed = DensePipeline.from_pretrained(run, dtype="float32")
    next(changed.net.parameters()).add_(1)
    place = changed.save_pretrained(tmp_path / "saved")
    again = DensePipeline.from_pretrained(place, dtype="float32")
    assert torch.equal(answer(again), answer(changed)) and again.name != changed.name
    assert not (place / "eval").exists() and not (place / "sweep").exists()
    assert "None are stored with these weights" in (place / "README.md").read_text()


def test_a_pipeline_without_a_checkpoint_is_saved(lab, tmp_path):
    made = lab.pipeline()
    again = DensePipeline.from_pretrained(made.save_pretrained(tmp_path / "saved"))
    assert torch.equal(answer(again), answer(made))
    assert "is not known to stepsight" in (tmp_path / "saved" / "README.md").read_text()


def test_half_the_size_is_asked_for(lab, tmp_path):
    made = lab.pipeline()
    saved = checkpoint.read(made.save_pretrained(tmp_path / "saved", dtype="float16"))
    assert {value.dtype for value in saved.tensors(BACKBONE).values()} == {torch.float16}
    with pytest.raises(UserError, match="dtype int8"):
        made.save_pretrained(tmp_path / "other", dtype="int8")


def test_a_vae_travels_along(lab, vae_of, tmp_path):
    made = lab.pipeline()
    made.codec = vae_of(0)
    place = made.save_pretrained(tmp_path / "saved")
    assert (place / "codec" / "config.json").is_file()
    assert checkpoint.read(place).home == place
    assert checkpoint.read(place).meta["codec"] == made.codec.name


def test_the_card_tells_what_the_folder_holds(opened, tmp_path):
    text = (opened.save_pretrained(tmp_path / "saved", licence="mit") / "README.md").read_text()
    results = json.loads((PACKAGED / "eval" / "results.json").read_text())
    depth = next(row for row in results if row["task"] == "depth")
    assert f"**{depth['metrics']['abs_rel']:.3f}**" in text and depth["protocol"] in text
    for said in ('license: "mit"', "procedural worlds of level standard", "not one photograph",
                 "pipeline_tag: depth-estimation", opened.name, "stored in float16"):  # fmt: skip
        assert said in text
    pictures = re.findall(r"!\[(.+?)\]\((.+?)\)", text)
    assert len(pictures) > 20 and "the true depth" in dict(pictures)
    for _, file in pictures:
        with Image.open(tmp_path / "saved" / file) as opened:
            assert opened.width >= 192


def test_the_cells_of_a_card_hold_any_name(opened, tmp_path, monkeypatch):
    source = opened.source
    assert source is not None
    monkeypatch.setitem(source.meta, "run", "a|b <img> [x](y)\n# head")
    text = (opened.save_pretrained(tmp_path / "saved") / "README.md").read_text()
    assert "# a\\|b &lt;img> \\[x](y) # head\n" in text


def test_the_command_line_saves_what_it_opens(run, opened, tmp_path, capsys):
    out = str(tmp_path / "out.tar")
    export = ["convert", "export", "--checkpoint", str(run), "--out", out, "--format"]
    assert main([*export, "dit", "--licence", "mit"]) == 2
    assert main([*export, "stepsight", "--licence", "mit"]) == 0
    assert DensePipeline.from_pretrained(out).name == opened.name
    scored = ["evaluate", "--checkpoint", out, "--data.images", "1", "--processes", "1"]
    assert main(scored) == 2
    assert "no folder to write to: pass --out" in capsys.readouterr().err
    assert main(["calibrate", "--checkpoint", out, "--remove"]) == 2
    assert "--format stepsight" in capsys.readouterr().err


def test_pictures_are_answered_without_a_checkpoint(tmp_path, capsys):
    Image.new("RGB", (20, 16), "red").save(tmp_path / "photo.png")
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "photo.png"), "--out", str(out), "--nfe", "1"]) == 0
    assert "seen no photographs" in capsys.readouterr().err
    assert (out / "photo-depth.npy").is_file()
    assert DensePipeline.from_pretrained().name == checkpoint.read(PACKAGED).digest()


def test_the_packaged_checkpoint_is_small_and_says_whose_it_is():
    assert sum(one.stat().st_size for one in PACKAGED.rglob("*") if one.is_file()) < 4_000_000
    card = (PACKAGED / "README.md").read_text()
    assert "Licence: apache-2.0" in card and "not one photograph" in card
