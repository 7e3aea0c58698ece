"""Files answer as the pipeline, in torch and in onnxruntime, and say what they hold."""

from __future__ import annotations

import sys

import pytest
import torch

from stepsight.errors import UserError
from stepsight.exporting import files, parity
from stepsight.exporting.graph import AnswerGraph, AnswerRequest
from stepsight.pipeline.defaults import SamplingSetting

ZEROS = SamplingSetting(2, 1, 0.0, "mirror")
NOISE = SamplingSetting(1, 2, 1.0, "none")


@pytest.fixture(scope="module")
def answer_of(laboratory):
    pipeline = laboratory().pipeline()
    return lambda task, setting, size, noise=None: AnswerGraph(
        pipeline, AnswerRequest(task, setting, size, noise)
    )


def holds(answer, path, format):
    run = files.write(answer, path, format)
    for size in answer.sizes:
        found = parity.compare(answer, run, size)
        assert found.holds and found.difference < 1e-4, found
    return run


def test_a_mask_is_completed_by_onnxruntime(answer_of, tmp_path):
    import onnx

    answer = answer_of("amodal", SamplingSetting(1, 1, 0.0, "none"), (16, 24))
    path = tmp_path / "amodal.onnx"
    holds(answer, path, "onnx")
    model = onnx.load(path)
    assert [entry.name for entry in model.graph.input] == ["image", "mask"]
    assert [entry.name for entry in model.graph.output] == ["values"]
    assert [*tmp_path.iterdir()] == [path]  # weights and all
    assert files.about(path)["unit"] == "probability, of the whole object"


@pytest.mark.slow
@pytest.mark.parametrize("size", [(24, 40), None])
def test_members_are_merged_by_onnxruntime(answer_of, tmp_path, size):
    answer = answer_of("depth", NOISE, size)
    assert answer.takes_noise == (size is None)
    holds(answer, tmp_path / "merged.onnx", "onnx")


@pytest.mark.slow
def test_calls_see_views_in_a_file_of_torch(answer_of, tmp_path):
    path = tmp_path / "flow.pt2"
    holds(answer_of("flow", ZEROS, (24, 40)), path, "torch")
    assert files.about(path)["views"] == "mirror"


def test_other_answers_do_not_hold(answer_of):
    answer = answer_of("depth", ZEROS, (16, 16))

    def off(given):
        (values,) = answer.expected(given)
        values = values.clone()
        values[..., 3, 5] *= 1 + 3e-4
        return (values,)

    found = parity.compare(answer, off, (16, 16))
    assert not found.holds and found.beyond == 1 / 256
    assert "largest difference 3.0e-04, bar 1e-04" in str(found)
    broken = parity.compare(
        answer, lambda given: (answer.expected(given)[0] * torch.nan,), (16, 16)
    )
    assert not broken.holds and broken.difference == torch.inf


def test_where_classes_tie_a_pixel_may_be_another(answer_of):
    answer = answer_of("semantic", SamplingSetting(1, 1, 0.0, "none"), (40, 40))

    def off(pixels):
        def run(given):
            (ids,) = answer.expected(given)
            ids = ids.clone()
            ids[..., 0, :pixels] += 1
            return (ids,)

        return parity.compare(answer, run, (40, 40))

    assert off(1).holds and not off(2).holds
    assert "beyond it 0.06% of the pixels, of 0.1%" in str(off(1))


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="need onnxruntime: `uv sync --extra export`"):
        files.opened(tmp_path / "depth.onnx")


def test_what_cannot_be_recorded_says_why(answer_of, monkeypatch):
    answer = answer_of("depth", ZEROS, (16, 16))
    monkeypatch.setattr(answer.net, "encode", lambda *_: torch.zeros(1).numpy())
    with pytest.raises(UserError, match="task depth of this checkpoint cannot be recorded"):
        files.recorded(answer)
