"""Collections answered: alike in batches and alone, upright, past damage, over one range."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from stepsight.data.decoding.images import read_image
from stepsight.errors import DataFormatError, UserError
from stepsight.predicting.gathering import consecutive, with_other
from stepsight.predicting.tiles import predict_tiled

SIZES = ((18, 24), (24, 18), (18, 24), (40, 30), (9, 12))  # some are seen at the same size
TURNED = {  # how a picture has to be stored for each orientation tag (Exif 2.3, 4.6.4)
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x[:, ::-1].transpose(1, 0, 2),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: x[::-1].transpose(1, 0, 2),
}


def test_batches_answer_as_single_pictures(model, picture, predict, tmp_path):
    paths = [picture(f"in/{i}.png", i, *size) for i, size in enumerate(SIZES)]
    # Noise of several members, so that it must follow the picture and not its place.
    how = {"members": 2, "temperature": 1.0}
    for batch in (1, 2, 8):
        predict(tmp_path / "in", out=tmp_path / str(batch), batch=batch, how=how)
    for path in paths:
        alone = model(path, "depth", nfe=1, **how)
        for batch in (1, 2, 8):
            stem = tmp_path / str(batch) / path.stem
            values = np.load(f"{stem}-depth.npy")
            spread = np.load(f"{stem}-depth-uncertainty.npy")
            np.testing.assert_allclose(values, alone.values[0], rtol=2e-5)
            np.testing.assert_allclose(spread, alone.uncertainty[0], rtol=1e-3, atol=1e-6)


def test_large_pictures_share_no_batch(picture, predict, monkeypatch, model):
    for i in range(4):
        picture(f"in/{i}.png", i)
    counts = []
    call = type(model).__call__

    def counted(self, image, *args, **how):
        counts.append(len(image))
        return call(self, image, *args, **how)

    monkeypatch.setattr(type(model), "__call__", counted)
    monkeypatch.setattr("stepsight.predicting.run.PIXELS", 2 * 18 * 24)
    predict(picture("in/0.png").parent)
    assert counts == [2, 2]


def test_a_picture_is_answered_upright_however_it_is_stored(picture, predict, tmp_path):
    pixels = np.asarray(Image.open(picture("upright.png")))
    for tag, turn in TURNED.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        stored = Image.fromarray(np.ascontiguousarray(turn(pixels)))
        (tmp_path / "in").mkdir(exist_ok=True)
        stored.save(tmp_path / "in" / f"{tag}.png", exif=exif)
    predict(tmp_path / "in", tmp_path / "upright.png")
    upright = np.load(tmp_path / "out" / "upright-depth.npy")
    assert upright.shape == (1, 18, 24)
    for tag in TURNED:
        found = np.load(tmp_path / "out" / "in" / f"{tag}-depth.npy")
        np.testing.assert_allclose(found, upright, rtol=1e-5, err_msg=str(tag))
        assert read_image(tmp_path / "out" / "in" / f"{tag}-depth.png").shape[1:] == (18, 24)


@pytest.mark.parametrize("task", ["depth", "flow", "amodal", "semantic", "normals"])
def test_arrays_are_channels_rows_columns(task, picture, predict, tmp_path):
    for i in range(2):
        picture(f"in/{i}.png", i)
        mask = np.zeros((18, 24), np.uint8)
        mask[4:9, 5:15] = 255
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")

    def change(items):
        items = consecutive(items) if task == "flow" else items
        return with_other(items, "mask", str(tmp_path / "masks")) if task == "amodal" else items

    predict(tmp_path / "in", task=task, how={"members": 2}, change=change)
    channels = {"flow": 2, "normals": 3}.get(task, 1)
    assert np.load(tmp_path / "out" / f"0-{task}.npy").shape == (channels, 18, 24)
    assert np.load(tmp_path / "out" / f"0-{task}-uncertainty.npy").shape == (1, 18, 24)
    assert (tmp_path / "out" / f"1-{task}.npy").exists() == (task != "flow")


def test_what_is_damaged_is_passed_and_named(picture, predict, tmp_path):
    for i in range(20):
        picture(f"in/{i:02}.png", i)
    broken = [tmp_path / "in" / f"{i:02}.png" for i in (3, 17)]
    broken[0].write_bytes(broken[0].read_bytes()[:60])
    broken[1].write_text("no picture")
    outcome = predict(tmp_path / "in", on_bad="skip")
    assert (outcome.answered, outcome.before) == (18, 0)
    assert list(outcome.skipped) == [str(path) for path in broken]
    assert len(list((tmp_path / "out").glob("*.npy"))) == 18
    notes = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(note)["key"] for note in notes] == [str(path) for path in broken]


def test_by_default_the_first_that_is_damaged_ends_it_and_what_was_before_is_kept(
    picture, predict, tmp_path
):
    for i in range(5):
        picture(f"in/{i}.png", i)
    (tmp_path / "in" / "3.png").write_text("no picture")
    with pytest.raises(DataFormatError, match=r"3\.png.*--on-bad skip"):
        predict(tmp_path / "in", batch=2)
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.npy")) == [
        "0-depth", "1-depth", "2-depth"
    ]  # fmt: skip
    outcome = predict(tmp_path / "in", on_bad="skip")
    assert (outcome.answered, outcome.before, len(outcome.skipped)) == (1, 3, 1)


def test_one_that_cannot_be_answered_does_not_take_its_batch_along(picture, predict, tmp_path):
    for i in range(4):
        picture(f"in/{i}.png", i)
    picture("second/1.png", 1, 9, 9)  # of another size than its frame
    for i in (0, 2, 3):
        picture(f"second/{i}.png", i)
    outcome = predict(
        tmp_path / "in",
        task="flow",
        on_bad="skip",
        change=lambda items: with_other(items, "second", str(tmp_path / "second")),
    )
    assert outcome.answered == 3 and list(outcome.skipped) == [str(tmp_path / "in" / "1.png")]
    assert "(18, 24)" in outcome.skipped[str(tmp_path / "in" / "1.png")]


def apart(ours, theirs) -> int:
    return int((ours.int() - theirs.int()).abs().max())


def test_colours_of_each_picture_of_given_limits_or_of_all(model, picture, predict, tmp_path):
    for i in range(3):
        picture(f"in/{i}.png", i)
    painted = {}
    for limits in (None, (1.0, 20.0), "common"):
        out = tmp_path / str(limits)
        predict(tmp_path / "in", out=out, limits=limits)
        painted[limits] = [read_image(out / f"{i}-depth.png") for i in range(3)]
    values = [model(tmp_path / "in" / f"{i}.png", "depth", nfe=1, members=1) for i in range(3)]
    task = model.tasks["depth"]
    ends = [task.limits(one.values) for one in values]
    common = min(low for low, _ in ends), max(high for _, high in ends)
    for i, one in enumerate(values):
        assert apart(painted[None][i], one.picture[0]) <= 1  # batches have their own last digits
        for limits, meant in (((1.0, 20.0), (1.0, 20.0)), ("common", common)):
            assert apart(painted[limits][i], task.coloured(one.values, meant)[0]) <= 1
    with pytest.raises(UserError, match="--range: a colour of normals means the same"):
        predict(tmp_path / "in", task="normals", limits=(0.0, 1.0))
    with pytest.raises(UserError, match="save npy,picture"):
        predict(tmp_path / "in", limits="common", save="picture")


def test_the_working_size_can_be_set(model, picture, predict, tmp_path):
    path = picture("a.png", 0, 60, 80)
    predict(path, how={"size": 32})
    expected = model(path, "depth", nfe=1, members=1, size=32).values[0]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a-depth.npy"), expected, rtol=1e-5)
    usual = model(path, "depth", nfe=1, members=1).values[0]
    assert not np.allclose(expected, usual)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["tasks"]["depth"]["working"] == 32


def test_a_large_picture_is_answered_in_tiles(model, picture, predict, tmp_path):
    path = picture("a.png", 0, 48, 64)
    predict(path, tile=32, how={"members": 2})
    expected = predict_tiled(model, str(path), "depth", 32, nfe=1, members=2)
    found = np.load(tmp_path / "out" / "a-depth.npy")
    np.testing.assert_allclose(found, expected.values[0], rtol=1e-5)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["tasks"]["depth"]["tile"] == 32


def test_several_tasks_share_a_folder(picture, predict, tmp_path):
    path = picture("a.png")
    predict(path)
    predict(path, task="normals")
    tasks = json.loads((tmp_path / "out" / "manifest.json").read_text())["tasks"]
    assert tasks.keys() == {"depth", "normals"}
    assert tasks["depth"]["unit"] == "depth up to scale and shift of log depth"
    assert tasks["normals"]["formats"]["npy"]["ending"] == "-normals.npy"
    assert tasks["depth"] | {"task": "normals"} != tasks["normals"]
    assert (tasks["depth"]["nfe"], tasks["depth"]["checkpoint"]) == (1, "digest")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("flow", {}, "task flow needs a second image"),
        ("amodal", {}, "task amodal needs the visible mask"),
        ("depth", {"save": "npz"}, "--save npz: no such format. Did you mean 'npy'"),
        ("depth", {"save": "npy,flo"}, "--save flo: not for depth: .flo holds flow"),
        ("normals", {"save": "png16"}, "--save png16: not for normals"),
        ("semantic", {"save": "exr"}, "--save exr: not for semantic"),
        ("depth", {"save": "mp4"}, "Folders of frames are films with --as-film"),
        ("depth", {"save": "ply", "camera": {"given": [1.0, 2.0]}}, "give fx,fy,cx,cy in pixels"),
        ("depth", {"save": "ply", "camera": {"fov": 180.0}}, "a field of view of 180 degrees"),
        ("depth", {"save": "ade20k"}, "--save ade20k: not for depth"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_call(
    task, options, message, picture, predict, tmp_path
):
    with pytest.raises(UserError, match=message):
        predict(picture("a.png"), task=task, **options)
    assert not (tmp_path / "out").exists()


def test_a_benchmark_that_flattens_its_tree_has_one_name_for_two(picture, predict, tmp_path):
    picture("in/a/x.png")
    picture("in/b/x.png")
    with pytest.raises(UserError, match="one name for .*a/x.png and .*b/x.png"):
        predict(tmp_path / "in", save="kitti-depth")
    predict(tmp_path / "in" / "a", save="kitti-depth,npy")
    stored = np.asarray(Image.open(tmp_path / "out" / "kitti-depth" / "x.png"))
    values = np.load(tmp_path / "out" / "x-depth.npy")[0]
    np.testing.assert_allclose(stored / 256, values, atol=1 / 256)


def test_a_mask_of_the_list_goes_with_its_picture(model, picture, predict, tmp_path):
    path, masks = picture("a.png"), []
    for i in range(2):
        mask = np.zeros((18, 24), np.uint8)
        mask[2 + 6 * i : 8 + 6 * i, 4:18] = 255
        masks.append(tmp_path / f"m{i}.png")
        Image.fromarray(mask).save(masks[-1])
    rows = [{"image": "a.png", "modal": f"m{i}.png", "key": f"a/{i}"} for i in range(2)]
    listed = tmp_path / "list.jsonl"
    listed.write_text("\n".join(map(json.dumps, rows)))
    predict(listed, task="amodal")
    for i, mask in enumerate(masks):
        expected = model(path, "amodal", mask=mask, nfe=1, members=1).values[0]
        found = np.load(tmp_path / "out" / "a" / f"{i}-amodal.npy")
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(found, np.load(tmp_path / "out" / "a" / "0-amodal.npy"), atol=1e-3)


def test_what_is_inside_of_a_mask_can_be_said(model, picture, predict, tmp_path):
    path, mask = picture("a.png"), tmp_path / "mask.png"
    labels = np.zeros((18, 24), np.uint8)
    labels[3:9, 2:20], labels[9:15, 2:20] = 3, 7
    Image.fromarray(labels).save(mask)

    def change(items):
        return with_other(items, "mask", str(mask))

    with pytest.raises(DataFormatError, match=r"mask\.png"):  # two objects
        predict(path, task="amodal", change=change)
    predict(path, task="amodal", change=change, inside="7")
    expected = model(path, "amodal", mask=labels == 7, nfe=1, members=1).values[0]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a-amodal.npy"), expected, atol=1e-5)
