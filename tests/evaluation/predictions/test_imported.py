"""Predictions of other programs, scored as those of a model are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation.evaluator import score
from stepsight.evaluation.predictions.dump import Saving, read_manifest, write_facts
from stepsight.evaluation.predictions.files import find_files
from stepsight.evaluation.predictions.imported import Imported
from stepsight.evaluation.predictors import Model
from stepsight.metrics import protocol as protocols

DRAW = np.random.default_rng(0)


def rules(task: str) -> list[protocols.Protocol]:
    names = {
        "depth": ("depth-affine-log", "depth-affine", "marigold-depth", "midas", "depth-metric")
    }
    return [protocols.get(name, task) for name in names.get(task, ())] or [
        protocols.default_for(task)
    ]


def imported(folder: Path, source, task: str, **options) -> Imported:
    files = find_files(folder, [source[i].key for i in range(len(source))])
    return Imported(task, folder, files, classes=7, **options)


def assert_same_tables(found, expected) -> None:
    assert found and found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("task", ["depth", "flow", "amodal", "semantic"])
@pytest.mark.parametrize("members", [1, 3])
def test_a_dump_scores_as_the_model_did(lab, tmp_path, task, members):
    source = replace(lab.held, grids=((16, 16), (24, 32)))
    model = Saving(lab.pipeline(), task, [2], [members], "ddim", keep=True, folder=tmp_path)
    direct = score(model, source, rules(task), range(6))
    folder = tmp_path / "none"
    again = score(imported(folder, source, task), source, rules(task), range(6))
    for one, other in zip(again, direct):
        assert one.keys == other.keys and one.protocol == other.protocol
        ((setting, rows),) = one.settings.items()
        assert setting[1] == (members if task in ("depth", "flow") or members == 1 else members)
        assert_same_tables(rows, other.settings[2, members])
        if members > 1:  # probabilities of classes are the model's own: files hold votes
            apart = {"brier", "calibration"} if task == "semantic" else set()
            ours, theirs = (
                {name: rows[name] for name in rows.keys() - apart}
                for rows in (one.uncertainty[setting], other.uncertainty[2, members])
            )
            assert_same_tables(ours, theirs)
        else:
            assert not one.uncertainty
            assert bool(other.uncertainty) == (task in ("amodal", "semantic"))
    made = read_manifest(folder)
    assert made and (made["checkpoint"], made["nfe"], made["crop"]) == ("digest", [2], "none")


def test_protocols_of_one_view_share_the_prediction_and_others_get_their_own(lab, tmp_path):
    source = lab.Source(count=1, seed="held", grids=((360, 1220),))
    pipeline, seen = lab.pipeline(), []
    sample = pipeline.sample

    def counted(batch, task, **options):
        seen.append(tuple(batch.image.shape[-2:]))
        return sample(batch, task, **options)

    pipeline.sample = counted
    model = Model(pipeline, "depth", [1], [1], "ddim")
    names = ("depth-affine", "depth-affine-log", "marigold-kitti", "depth-metric")
    found = score(model, source, [protocols.get(name) for name in names], range(1))
    assert seen == [(360, 1220), (352, 1216)]
    assert [one.protocol for one in found] == list(names)
    assert len({float(one.settings[1, 1]["abs_rel"][0]) for one in found}) == 4


def truth_files(folder: Path, source, crop: bool = False) -> Path:
    folder.mkdir()
    for i in range(len(source)):
        depth = source[i].depth
        depth = depth[:, 8:, 2:1218] if crop else depth
        np.save(folder / f"{source[i].key}.npy", depth.numpy())
    return folder


@pytest.mark.parametrize("crop", [False, True])
def test_a_prediction_is_of_the_image_or_of_its_cropped_part(lab, tmp_path, crop):
    source = lab.Source(count=1, seed="held", grids=((360, 1220),))
    folder = truth_files(tmp_path / "out", source, crop)
    kitti = [protocols.get("marigold-kitti")]
    (found,) = score(imported(folder, source, "depth"), source, kitti, range(1))
    assert float(found.settings[0, 1]["abs_rel"][0]) < 1e-6
    if crop:
        with pytest.raises(
            DataFormatError, match="352 x 1216 pixels, where its image has 360 x 1220"
        ):
            score(imported(folder, source, "depth"), source, rules("depth"), range(1))


def test_predictions_of_another_size_are_resized_when_told(lab, tmp_path):
    source = lab.Source(count=1, seed="held", grids=((24, 32),))
    flow = source[0].flow
    small = torch.nn.functional.avg_pool2d(flow, 2) / 2  # half the grid, half the pixels
    np.save(tmp_path / f"{source[0].key}.npy", small.numpy())
    with pytest.raises(DataFormatError, match="12 x 16 pixels, where its image has 24 x 32"):
        score(imported(tmp_path, source, "flow"), source, rules("flow"), range(1))
    (found,) = score(
        imported(tmp_path, source, "flow", resize=True), source, rules("flow"), range(1)
    )
    assert 0 < float(found.settings[0, 1]["epe"][0]) < 0.1


@pytest.mark.parametrize("given", ["disparity", "log"])
def test_depth_may_be_given_as_disparity_or_logarithm(lab, tmp_path, given):
    """Up to the fit: an affine map of disparity or log depth is perfect in its own space."""
    source = lab.Source(count=2, seed="held")
    for i in range(2):
        depth = source[i].depth
        values = 3 / depth - 0.1 if given == "disparity" else 2 * depth.log() - 1
        np.save(tmp_path / f"{source[i].key}.npy", values.numpy())
    name = "marigold-disparity" if given == "disparity" else "depth-affine-log"
    predictor = imported(tmp_path, source, "depth", given=given)
    (found,) = score(predictor, source, [protocols.get(name)], range(2))
    assert found.settings[0, 1]["abs_rel"].max() < 1e-5
    assert found.baselines["constant"]["abs_rel"].min() > 0.05


def test_members_in_one_file_are_merged_and_their_spread_is_scored(lab, tmp_path):
    source = lab.Source(count=2, seed="held")
    for i in range(2):
        noise = torch.from_numpy(DRAW.normal(size=(5, *source[i].flow.shape))).float()
        np.save(tmp_path / f"{source[i].key}.npy", (source[i].flow + noise).numpy())
    (found,) = score(imported(tmp_path, source, "flow"), source, rules("flow"), range(2))
    rows = found.uncertainty[0, 5]
    always = {"ause", "aurg", "spread", "spread_error"}
    assert rows.keys() == always | {"coverage_90", "crps", "calibration"}
    assert (rows["coverage_90"] > 0.7).all() and (rows["crps"] < 0.5).all()
    assert (found.settings[0, 5]["epe"] < 0.8).all()  # sqrt(pi / 2) / sqrt(5) is .56


def test_class_ids_without_a_class_are_refused_by_name(lab, tmp_path):
    source = lab.Source(count=1, seed="held")
    np.save(tmp_path / f"{source[0].key}.npy", np.full((16, 16), 7))
    with pytest.raises(UserError, match=f"{source[0].key}: class 7 is predicted .* 0 to 6"):
        score(imported(tmp_path, source, "semantic"), source, rules("semantic"), range(1))


def test_what_is_predicted_where_the_truth_is_void_may_be_anything(lab, tmp_path):
    source = lab.Source(count=1, seed="held")
    labels = source[0].labels
    assert (labels == 255).any()
    np.save(tmp_path / f"{source[0].key}.npy", labels.numpy())
    (found,) = score(imported(tmp_path, source, "semantic"), source, rules("semantic"), range(1))
    confusion = found.settings[0, 1]["confusion"][0]
    assert torch.equal(confusion, confusion.diagonal().diag())


@pytest.mark.parametrize("beside", ["members", "uncertainty"])
def test_images_that_differ_in_what_is_predicted_are_not_averaged(lab, tmp_path, beside):
    """Also where they are scored one at a time."""
    source = lab.Source(count=2, seed="held")
    for i in range(2):
        np.save(tmp_path / f"{source[i].key}.npy", source[i].flow.numpy())
    other = source[1].flow.expand(3, -1, -1, -1) if beside == "members" else source[1].flow[:1]
    np.save(tmp_path / f"{source[1].key}.{beside}.npy", other.numpy())
    for rows in (1, 2):
        with pytest.raises(UserError, match="members|uncertainty"):
            score(
                imported(tmp_path, source, "flow", chunk_size=rows), source, rules("flow"), range(2)
            )


def test_the_uncertainty_is_resized_with_its_prediction(lab, tmp_path):
    source = lab.Source(count=1, seed="held", grids=((24, 32),))
    np.save(tmp_path / f"{source[0].key}.npy", source[0].flow[:, ::2, ::2].numpy())
    np.save(tmp_path / f"{source[0].key}.uncertainty.npy", DRAW.random((1, 12, 16)))
    predictor = imported(tmp_path, source, "flow", resize=True)
    (found,) = score(predictor, source, rules("flow"), range(1))
    assert found.uncertainty[0, 1].keys() == {"ause", "aurg", "spread", "spread_error"}


@pytest.mark.parametrize("text", ['{"version": 1}', "[1]", "3"])
def test_the_manifest_of_another_program_is_left_aside(lab, tmp_path, text):
    folder = truth_files(tmp_path / "out", lab.Source(count=1))
    (folder / "manifest.json").write_text(text)
    predictor = imported(folder, lab.Source(count=1), "depth")
    assert predictor.provenance.checkpoint == "out" and predictor.remark(rules("depth")[0]) is None


def test_relative_depth_is_not_passed_off_as_metres(lab, tmp_path):
    folder = truth_files(tmp_path / "out", lab.Source(count=1))
    facts = {"task": "depth", "crop": "none", "working": None, "checkpoint": "digest"}
    unit = "depth up to scale and shift of log depth"
    write_facts(folder, "depth", facts | {"unit": unit, "formats": {}})
    predictor = imported(folder, lab.Source(count=1), "depth")
    metric = protocols.get("depth-metric")
    assert predictor.remark(metric) == f"{unit}, scored as metres"
    assert predictor.remark(protocols.get("depth-affine")) is None


def test_a_changed_prediction_is_another_subject(lab, tmp_path):
    source = lab.Source(count=1)
    folder = truth_files(tmp_path / "out", source)
    before = imported(folder, source, "depth").subject
    assert before == imported(folder, source, "depth").subject
    np.save(folder / f"{source[0].key}.members.npy", np.ones((2, 1, 16, 16)))
    after = imported(folder, source, "depth").subject
    assert after != before
    assert after != replace(imported(folder, source, "depth"), classes=9).subject


def test_only_a_dump_to_the_same_folder_goes_on(lab, tmp_path):
    settings = (lab.pipeline(), "depth", [1], [1], "ddim")
    plain = Model(*settings).subject
    saved = [Saving(*settings, folder=tmp_path / name).subject for name in "aba"]
    assert saved[0] == saved[2] and plain not in saved and saved[0] != saved[1]


def test_options_are_those_that_are_not_as_usual(lab, tmp_path):
    source = lab.Source(count=1)
    folder = truth_files(tmp_path / "out", source)
    assert imported(folder, source, "depth").options == {}
    told = imported(folder, source, "depth", given="log", scale=256.0).options
    assert told == {"given": "log", "scale": 256.0}
