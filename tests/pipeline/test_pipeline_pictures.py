"""Any picture in, an answer on its own grid out; and the saved model is the live one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight import checkpoint
from stepsight.errors import DataFormatError, UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import to_tensor

TASKS = ("depth", "flow", "amodal", "semantic", "normals")
SIZE = (24, 32)
BLACK = np.zeros((9, 10, 3), dtype=np.uint8)

# ---------------------------------------------------------------------------- strangers


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_of_any_odd_size_is_answered_on_its_own_grid(task, pipeline, picture):
    image = picture(37, 51)
    more = {"flow": {"second": picture(37, 51)[:, ::-1]}, "amodal": {"mask": image[..., 0] > 99}}
    found = pipeline(image, task, nfe=1, members=2, **more.get(task, {}))
    assert found.values.shape[0] == 1 and found.values.shape[-2:] == (37, 51)
    assert found.uncertainty is not None and found.uncertainty.shape == (1, 1, 37, 51)
    assert found.picture is not None
    assert found.picture.shape == (1, 3, 37, 51) and found.picture.dtype == torch.uint8


def test_a_path_a_pil_image_and_an_array_are_the_same_picture(pipeline, tmp_path, picture):
    array, file = picture(21, 40), tmp_path / "a.png"
    Image.fromarray(array).save(file)
    answers = [
        pipeline(image, "depth", nfe=1, members=2).values
        for image in (
            array,
            Image.fromarray(array),
            file,
            str(file),
            np.dstack([array, array[..., 0]]),
        )
    ]
    assert all(torch.equal(one, answers[0]) for one in answers)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pil_images_of_every_kind_are_seen_in_their_colours(mode, picture):
    image = Image.fromarray(picture(6, 9)).convert(mode)
    expected = np.asarray(image.convert("RGBA").convert("RGB")).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(to_tensor(image).numpy(), expected, atol=1e-6)


def test_masks_are_read_from_arrays_and_files_alike(pipeline, tmp_path, picture):
    image, mask = picture(24, 32), picture(24, 32)[..., 0] > 127
    file = tmp_path / "mask.png"
    Image.fromarray((mask * 255).astype(np.uint8)).save(file)
    answers = [
        pipeline(image, "amodal", mask=one, nfe=1, members=1).values
        for one in (mask, file, Image.open(file), (mask * 255).astype(np.uint8))
    ]
    assert all(torch.equal(one, answers[0]) for one in answers)
    inverse = pipeline(image, "amodal", mask=~mask, nfe=1, members=1).values
    assert not torch.equal(inverse, answers[0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((4, 4, 3), 1.5), "0 to 1; this one 1.5 to 1.5"),
        (np.full((4, 4), np.nan), "0 to 1; this one nan"),
        (np.zeros((4, 4, 3), dtype=np.uint16), "uint8 or of floats, not of torch.uint16"),
        (Image.new("F", (4, 4)), "mode F has no one meaning as colours"),
        (Image.new("I", (4, 4)), "mode I has no one meaning as colours"),
        (np.zeros((3, 8, 8), dtype=np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((8, 8, 2), dtype=np.uint8), r"\(8, 8, 2\)"),
        (np.zeros((1, 8, 8, 3), dtype=np.uint8), r"\(1, 8, 8, 3\)"),
        (np.zeros(8, dtype=np.uint8), r"\(8,\)"),
    ],
)
def test_what_is_no_picture_is_refused(image, message):
    with pytest.raises(UserError, match=message):
        to_tensor(image)


def test_a_damaged_file_is_named(pipeline, tmp_path, picture):
    file = tmp_path / "broken.png"
    Image.fromarray(picture(9, 9)).save(file)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataFormatError, match="broken.png"):
        pipeline(file, "depth")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("flow", {}, "task flow needs a second image .*--second"),
        ("amodal", {}, "task amodal needs the visible mask .*--mask"),
        ("flow", {"second": BLACK[:, :9]}, r"the image is \(9, 10\), its second is \(9, 9\)"),
        (
            "amodal",
            {"mask": np.ones((9, 8), bool)},
            r"the image is \(9, 10\), its modal is \(9, 8\)",
        ),
        ("amodal", {"mask": BLACK}, "the mask: nothing is inside"),
        ("dept", {}, "asked for dept. Did you mean 'depth'"),
        ("depth", {"sampler": "ddimm"}, "no sampler 'ddimm'. Did you mean 'ddim'"),
        ("depth", {"sampler": "heun", "nfe": 4}, "heun cannot spend exactly 4.* 3 or 5"),
        ("depth", {"nfe": 0}, "cannot spend exactly 0"),
        ("depth", {"members": 0}, "0 members"),
    ],
)
def test_what_cannot_be_answered_is_said(task, options, message, pipeline):
    with pytest.raises(UserError, match=message):
        pipeline(BLACK, task, **options)


@pytest.mark.parametrize(("sampler", "nfe"), [("euler", 3), ("heun", 3), ("dpmpp_2m", 3)])
def test_another_sampler_may_be_asked_for(sampler, nfe, pipeline, picture):
    calls = []
    hook = pipeline.net.register_forward_pre_hook(lambda *_: calls.append(1))
    found = pipeline(picture(24, 32), "depth", nfe=nfe, members=2, sampler=sampler)
    hook.remove()
    assert len(calls) == nfe
    assert not torch.equal(
        found.values, pipeline(picture(24, 32), "depth", nfe=nfe, members=2).values
    )
    assert pipeline.config.diffusion.sampler == "ddim"


# ---------------------------------------------------------------------------- from the disk


def test_the_saved_model_is_the_live_one(pipeline, tmp_path, picture):
    statistics = {"depth": torch.ones(2, *SIZE, dtype=torch.float64)}
    weights = dict(pipeline.net.state_dict())
    checkpoint.write(
        tmp_path / "checkpoints",
        1,
        config=pipeline.config,
        meta={"sizes": {task: list(SIZE) for task in TASKS}},
        tensors={checkpoint.BACKBONE: weights, checkpoint.STATISTICS: statistics},
    )
    saved = DensePipeline.from_pretrained(tmp_path)
    assert saved.sizes == pipeline.sizes and saved.config == pipeline.config
    assert torch.equal(saved.statistics["depth"], statistics["depth"])
    assert saved.name == checkpoint.read(tmp_path).digest() and saved.device.type == "cpu"
    assert saved.home == tmp_path.resolve() and pipeline.home is None
    assert not any(p.requires_grad for p in saved.net.parameters()) and not saved.net.training
    for task, more in (("depth", {}), ("flow", {"second": picture(37, 51)})):
        live, loaded = (
            one(picture(37, 51), task, nfe=2, members=2, **more) for one in (pipeline, saved)
        )
        assert torch.equal(live.values, loaded.values) and torch.equal(live.picture, loaded.picture)


def test_a_backbone_that_is_gone_is_named_with_the_version_that_has_it(pipeline, tmp_path):
    config = replace(pipeline.config, model=replace(pipeline.config.model, name="hourglass-64"))
    meta = {"sizes": {task: list(SIZE) for task in TASKS}, "revision": "441319a"}
    path = checkpoint.write(
        tmp_path, 1, config=config, meta=meta, tensors={checkpoint.BACKBONE: {"x": torch.ones(1)}}
    )
    with pytest.raises(checkpoint.CheckpointError) as caught:
        DensePipeline.from_pretrained(tmp_path)
    said = str(caught.value)
    assert said.startswith(
        f"{path} holds the weights of hourglass-64, a backbone that this version"
    )
    assert "that wrote it (revision 441319a), or train split-32 in its place" in said
    assert checkpoint.read(tmp_path).meta["revision"] == "441319a"  # what it is can still be read


def test_weights_of_other_tasks_are_refused(pipeline, tmp_path, make):
    fewer = make(tasks=("depth", "flow"))
    checkpoint.write(
        tmp_path,
        1,
        config=pipeline.config,
        meta={"sizes": {}},
        tensors={checkpoint.BACKBONE: dict(fewer.net.state_dict())},
    )
    with pytest.raises(checkpoint.CheckpointError, match="holds another model"):
        DensePipeline.from_pretrained(tmp_path)
