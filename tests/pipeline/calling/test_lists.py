"""Several pictures in one call, in every form they may have, and each answered as by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.errors import DataFormatError, UserError
from stepsight.pipeline import dense

GRIDS = [(24, 32), (48, 64), (31, 24), (24, 32), (60, 30)]  # the first two and the fourth: one size


def asked(task: str, pictures: list[np.ndarray]) -> dict:
    """What a task needs beside each picture."""
    if task == "flow":
        return {"second": [one[:, ::-1] for one in pictures]}
    return {"mask": [one[..., 0] > 99 for one in pictures]} if task == "amodal" else {}


@pytest.mark.parametrize("task", ["depth", "flow", "amodal", "semantic", "normals"])
def test_each_gets_what_it_would_get_alone(task, pipeline, picture):
    pictures = [picture(*grid) for grid in GRIDS]
    more, how = asked(task, pictures), {"nfe": 1, "members": 2}
    found = pipeline(pictures, task, **more, **how)
    assert isinstance(found, list)
    for place, (one, grid) in enumerate(zip(found, GRIDS, strict=True)):
        alone = pipeline(
            pictures[place], task, **{name: values[place] for name, values in more.items()}, **how
        )
        assert one.values.shape == (1, pipeline.tasks[task].files.channels[0], *grid)
        torch.testing.assert_close(one.x, alone.x, rtol=2e-4, atol=2e-4)
        far = (one.values.float() - alone.values.float()).abs() > 1e-3 * (1 + alone.values.abs())
        assert far.float().mean() <= (0.01 if task == "semantic" else 0)  # ties of classes
        assert (one.picture.int() - alone.picture.int()).abs().gt(2).float().mean() < 0.01
        torch.testing.assert_close(
            one.uncertainty.mean(), alone.uncertainty.mean(), rtol=1e-3, atol=1e-4
        )


def test_those_of_one_working_size_pass_the_network_together(pipeline, picture, monkeypatch):
    rows: list[int] = []
    hook = pipeline.net.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    pictures = [picture(*grid) for grid in GRIDS]
    try:
        pipeline(pictures, "depth", nfe=1, members=1)
        assert sorted(rows) == [1, 1, 3]
        monkeypatch.setattr(dense, "AT_ONCE", 2)
        rows.clear()
        pipeline(pictures, "depth", nfe=1, members=1)
        assert sorted(rows) == [1, 1, 1, 2]
        monkeypatch.setattr(dense, "PIXELS", 48 * 64)  # the first two, and the last three
        monkeypatch.setattr(dense, "AT_ONCE", 32)
        rows.clear()
        pipeline(pictures, "depth", nfe=1, members=1)
        assert sorted(rows) == [1, 1, 1, 2]
    finally:
        hook.remove()


def test_a_tolerance_holds_for_each(pipeline, picture):
    pictures, how = [picture(*grid) for grid in GRIDS[:3]], {"nfe": 1, "members": 4}
    found = pipeline(pictures, "depth", tolerance=0.1, **how)
    for one, image in zip(found, pictures):
        alone = pipeline(image, "depth", tolerance=0.1, **how)
        torch.testing.assert_close(one.values, alone.values, rtol=2e-4, atol=2e-4)


def test_all_forms_of_a_picture_are_one_picture(pipeline, picture, tmp_path):
    array, file = picture(21, 40), tmp_path / "a.png"
    Image.fromarray(array).save(file)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    forms = [
        array,
        Image.fromarray(array),
        file,
        str(file),
        tensor,
        tensor / 255,
        tensor.double() / 255,
    ]
    found = pipeline(forms, "depth", nfe=1, members=2)
    for one in found:
        torch.testing.assert_close(one.values, found[0].values, rtol=1e-5, atol=1e-5)
    stacked = pipeline(torch.stack([tensor, tensor.flip(-1)]), "depth", nfe=1, members=2)
    assert len(stacked) == 2
    torch.testing.assert_close(stacked[0].values, found[0].values, rtol=1e-5, atol=1e-5)
    alone = pipeline(tensor, "depth", nfe=1, members=2)
    assert torch.equal(alone.values, found[0].values) or alone.values.shape == (1, 1, 21, 40)
    assert pipeline([], "depth") == []


def test_masks_and_seconds_may_be_tensors(pipeline, picture):
    array = picture(24, 32)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    mask = torch.from_numpy(array[..., 0] > 99)
    expected = pipeline(array, "amodal", mask=mask.numpy(), nfe=1).values
    for one in (mask, mask[None]):
        assert torch.equal(pipeline(tensor, "amodal", mask=one, nfe=1).values, expected)
    flows = pipeline(tensor[None], "flow", second=tensor.flip(-1)[None], nfe=1)
    expected = pipeline(array, "flow", second=array[:, ::-1], nfe=1).values
    torch.testing.assert_close(flows[0].values, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "h w 3, not"),
        (torch.zeros(4, 6, 3), "3 h w, not 4 6 3"),
        (torch.full((3, 6, 6), 1.5), "holds 0 to 1; this one 1.5 to 1.5"),
        (torch.full((3, 6, 6), -0.5), "x \\+ 1"),
        (torch.full((3, 6, 6), torch.nan), "nan"),
        (torch.zeros(3, 6, 6, dtype=torch.int64), "int64"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_a_bad_one_is_named_by_its_place(bad, message, pipeline, picture):
    with pytest.raises(UserError, match=rf"picture \[1\] of 3: .*{message}"):
        pipeline([picture(9, 9), bad, picture(9, 9)], "depth", nfe=1)


def test_a_damaged_file_keeps_its_kind_of_error(pipeline, picture, tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataFormatError, match=r"picture \[0\] of 1: .*a\.png"):
        pipeline([file], "depth", nfe=1)


@pytest.mark.parametrize(
    ("task", "beside", "message"),
    [
        ("flow", {"second": "one"}, "2 pictures, and as second one for all"),
        ("flow", {"second": ["a", "b", "c"]}, "as second 3 of them: give a list of 2"),
        ("flow", {}, r"picture \[0\] of 2: task flow needs a second image"),
        ("amodal", {"mask": np.ones((9, 9), bool)}, "as mask one for all"),
        ("depth", {"class_id": [1, 2, 3]}, "2 pictures, and 3 classes"),
        (
            "amodal",
            {"mask": [np.ones((9, 9), bool), np.zeros((9, 9), bool)]},
            r"picture \[1\] of 2: .*nothing is inside",
        ),
    ],
)
def test_what_lies_beside_must_fit(task, beside, message, pipeline, picture):
    with pytest.raises(UserError, match=message):
        pipeline([picture(9, 9), picture(9, 9)], task, nfe=1, **beside)
