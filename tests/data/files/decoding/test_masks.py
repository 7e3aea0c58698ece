"""Masks in every form: one meaning, or a refusal that names the flag."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.data.decoding.masks import mask_of, read_mask
from stepsight.data.table import open_source, settings_for
from stepsight.errors import DataFormatError, UserError
from stepsight.pipeline.inputs import mask_of as mask_for_pipeline

INSIDE = np.zeros((24, 32), bool)
INSIDE[5:17, 8:25] = True
WHITE = (INSIDE * 255).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def painted(inside, outside) -> np.ndarray:
    return np.where(INSIDE[..., None], np.array(inside, np.uint8), np.array(outside, np.uint8))


def palette(*colours: int, indices: np.ndarray = INSIDE) -> Image.Image:
    image = Image.new("P", indices.shape[::-1])
    image.putpalette(colours)
    image.putdata(indices.astype(int).ravel().tolist())
    return image


def large(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.kron(values, np.ones((8, 8), np.uint8)))


ONE = {  # name: the picture, and its suffix
    "0 and 255": (Image.fromarray(WHITE), "png"),
    "0 and 1": (Image.fromarray(INSIDE.astype(np.uint8)), "png"),
    "0 and 7": (Image.fromarray(INSIDE.astype(np.uint8) * 7), "png"),
    "one bit": (Image.fromarray(INSIDE), "png"),
    "one bit, BMP": (Image.fromarray(INSIDE), "bmp"),
    "16 bits": (Image.fromarray(WHITE.astype(np.uint16) * 257), "png"),
    "16 bits of 0 and 1": (Image.fromarray(INSIDE.astype(np.uint16)), "png"),
    "palette of VOC": (palette(0, 0, 0, 128, 0, 0), "png"),
    "palette of greys": (palette(0, 0, 0, 255, 255, 255), "png"),
    "palette, GIF": (Image.fromarray(WHITE), "gif"),
    "black and white RGB": (Image.fromarray(painted([255] * 3, [0] * 3)), "png"),
    "green on black": (Image.fromarray(painted([0, 255, 0], [0] * 3)), "png"),
    "alpha of white": (Image.fromarray(painted([255] * 4, [255] * 3 + [0])), "png"),
    "alpha of black": (Image.fromarray(painted([0] * 3 + [255], [0] * 4)), "png"),
    "cut out": (Image.fromarray(np.dstack([NOISE, WHITE])), "png"),
    "opaque alpha": (Image.fromarray(painted([255] * 4, [0] * 3 + [255])), "png"),
}


@pytest.mark.parametrize(("image", "suffix"), ONE.values(), ids=ONE.keys())
def test_one_meaning(tmp_path, image, suffix):
    image.save(tmp_path / f"a.{suffix}")
    mask = read_mask(tmp_path / f"a.{suffix}")
    assert mask.dtype == torch.bool and mask.tolist() == [INSIDE.tolist()]
    assert torch.equal(mask_of(image, "", "it"), mask)


@pytest.mark.parametrize("quality", [40, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_and_soft_borders(tmp_path, quality, mode):
    whole = large(WHITE)
    whole.convert(mode).save(tmp_path / "a.jpg", quality=quality)
    expected = torch.from_numpy(np.asarray(whole) > 127)
    assert (read_mask(tmp_path / "a.jpg")[0] == expected).float().mean() > 0.999
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")  # its noise stays
    assert torch.equal(read_mask(tmp_path / "a.png"), read_mask(tmp_path / "a.jpg"))
    for scale, how in ((0.3, Image.Resampling.LANCZOS), (2.5, Image.Resampling.BICUBIC)):
        size = [round(side * scale) for side in whole.size]
        soft = whole.resize(size, how)
        soft.save(tmp_path / "b.png")
        assert read_mask(tmp_path / "b.png")[0].tolist() == (np.asarray(soft) > 127).tolist()


def test_empty_and_full():
    for values in (INSIDE * 0, np.zeros((4, 5), bool), np.zeros((4, 5), np.uint8)):
        assert not mask_of(values, "", "it").any()
    for values in (np.ones((4, 5)), np.full((4, 5), 255, np.uint8), np.ones((4, 5), bool)):
        assert mask_of(values, "", "it").all()
    black = large(WHITE * 0)
    black.putpixel((3, 3), 2)
    assert mask_of(black, "dark", "it").all()


VOID = INSIDE.astype(np.uint8) * 15
VOID[3:5, 6:27] = VOID[17:19, 6:27] = 255  # as VOC borders an object
OTHERS = {
    "a label map": Image.fromarray((np.arange(768) // 96).reshape(24, 32).astype(np.uint8)),
    "a label map with borders": Image.fromarray(VOID),
    "1 and 2": Image.fromarray(INSIDE.astype(np.uint8) + 1),
    "constant 3": Image.fromarray(np.full((24, 32), 3, np.uint8)),
    "a photograph": Image.fromarray(NOISE[..., 0]),
    "a ramp": Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (24, 1))),
    "red and blue": Image.fromarray(painted([255, 0, 0], [0, 0, 255])),
    "white and red": Image.fromarray(painted([255, 0, 0], [255] * 3)),
    "inverted palette": palette(255, 255, 255, 0, 0, 0),
    "a palette of three": palette(*range(9), indices=np.arange(768).reshape(24, 32) % 3),
    "alpha against colours": Image.fromarray(painted([0] * 3 + [255], [255] * 3 + [0])),
}


@pytest.mark.parametrize("image", OTHERS.values(), ids=OTHERS.keys())
def test_several_meanings_are_refused(tmp_path, image):
    image.save(tmp_path / "a.png")
    with pytest.raises(DataFormatError, match=r"a.png: a mask .*--mask-inside, data.folder.mask"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("image", "inside", "expected"),
    [
        (Image.fromarray(255 - WHITE), "dark", INSIDE),
        (Image.fromarray(255 - WHITE), "", ~INSIDE),
        (OTHERS["1 and 2"], "2", INSIDE),
        (OTHERS["1 and 2"], "nonzero", INSIDE | True),
        (OTHERS["a label map with borders"], "15", VOID == 15),
        (OTHERS["a ramp"], "bright", np.asarray(OTHERS["a ramp"]) > 127),
        (OTHERS["red and blue"], "255,0,0", INSIDE),
        (OTHERS["inverted palette"], "dark", INSIDE),
        (OTHERS["inverted palette"], "1", INSIDE),
        (OTHERS["a palette of three"], "2", (np.arange(768) % 3 == 2).reshape(24, 32)),
        (OTHERS["alpha against colours"], "alpha", INSIDE),
        (OTHERS["alpha against colours"], "bright", ~INSIDE),
    ],
)
def test_what_is_inside_can_be_said(tmp_path, image, inside, expected):
    image.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", inside)[0].tolist() == expected.tolist()


def test_what_cannot_be_inside_is_named(tmp_path):
    Image.fromarray(WHITE).save(tmp_path / "a.png")
    with pytest.raises(DataFormatError, match="a.png: has no alpha"):
        read_mask(tmp_path / "a.png", "alpha")
    with pytest.raises(UserError, match="mask_inside=brigth is none of bright, dark"):
        read_mask(tmp_path / "a.png", "brigth")
    Image.fromarray(NOISE).save(tmp_path / "b.png")
    with pytest.raises(DataFormatError, match="b.png: in colours; mask_inside takes one as R,G,B"):
        read_mask(tmp_path / "b.png", "1")


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float32])
def test_arrays_and_tensors(tmp_path, kind):
    for values in (INSIDE.astype(kind), INSIDE[None].astype(kind), INSIDE[..., None].astype(kind)):
        np.save(tmp_path / "a.npy", values)
        assert read_mask(tmp_path / "a.npy")[0].tolist() == INSIDE.tolist()
        for given in (values, torch.from_numpy(values)):
            assert mask_for_pipeline(given)[0].tolist() == INSIDE.tolist()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((4, 5), np.nan), "holds NaN"),
        (np.eye(5) - 1, "with the values -1, 0"),
        (np.zeros((2, 4, 5)), "where a mask is h w"),
        (np.eye(5, dtype=np.uint8) + 1, "with the values 1, 2"),
    ],
)
def test_arrays_of_no_meaning(values, reason):
    with pytest.raises(UserError, match=reason):
        mask_for_pipeline(values)


def test_a_folder_takes_the_users_word(pictures, tmp_path):
    root = pictures("a")
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(root / "images/a.png")
    for name in ("modal", "amodal"):
        (root / name).mkdir()
        OTHERS["1 and 2"].save(root / name / "a.png")
    with pytest.raises(DataFormatError, match="modal/a.png: a mask with the values 1, 2"):
        open_source(settings_for("folder", root=str(root)), "all")[0]
    source = open_source(settings_for("folder", root=str(root), mask_inside="2"), "all")
    assert source[0].modal[0].tolist() == INSIDE.tolist()
