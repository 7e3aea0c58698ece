"""Single-task perception models: what is imported computes what was published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stepsight import checkpoint
from stepsight.conversion.dit import Wishes, export_dit
from stepsight.conversion.foreign import Weights
from stepsight.conversion.generalist import import_single
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.types import Batch

CASES = [("depth", 8, 3), ("depth", 8, 0), ("depth", 12, 3), ("amodal", 12, 0)]


@pytest.mark.parametrize(("task", "inputs", "experts"), CASES)
def test_a_single_task_model_computes_what_its_layout_says(
    published, convert, vae, task, inputs, experts
):
    """Images first, then the noisy target; label 0, and the last row for none."""
    state = published.dense(inputs=inputs, experts=experts)
    pipeline = DensePipeline.from_pretrained(convert(state, "--vae", vae, "--task", task))
    draw = torch.Generator().manual_seed(3)
    image = torch.rand(1, 3, 32, 32, generator=draw) * 2 - 1
    modal = torch.rand(1, 1, 32, 32, generator=draw) > 0.5
    batch = Batch(image, ["a"], ["test"], modal=modal)
    prompt = modal.float().expand(-1, 3, -1, -1) * 2 - 1 if task == "amodal" else torch.ones(1)
    images = [image, prompt.expand(1, 3, 32, 32)][: inputs // 4 - 1]
    noisy = torch.randn(4, 8, 8, generator=draw)
    given = torch.cat([*(pipeline.codec.encode(one)[0] for one in images), noisy])
    coded = pipeline.code(pipeline.working(batch, task), task)
    for label, row in ((0, coded.label), (1000, torch.tensor([1]))):
        wanted = published.forward(state, given, 371.0, label, heads=2)
        with torch.inference_mode():
            found = pipeline.net(noisy[None], coded.cond, torch.tensor([371.0]), row)[0]
        assert published.difference(found, wanted) <= 1e-5


@pytest.mark.parametrize(("task", "inputs", "experts"), CASES)
def test_an_export_comes_back_with_equal_bits(
    published, convert, vae, tmp_path, task, inputs, experts
):
    state = published.dense(inputs=inputs, experts=experts)
    saved = checkpoint.read(convert(state, "--vae", vae, "--task", task))
    export_dit(saved, tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    found = load_file(file)
    assert sorted(found) == sorted(state)
    for name in state.keys() - {"pos_embed", "y_embedder.embedding_table.weight"}:
        assert torch.equal(found[name], state[name])
    again = checkpoint.read(convert(file, "--vae", vae, "--task", task, out="again"))
    assert again.digest() == saved.digest() and again.config == saved.config


@pytest.mark.parametrize(
    ("layout", "task", "message"),
    [
        ({"inputs": 8}, None, "Give --task depth"),
        ({"inputs": 12}, None, "Give --task depth or amodal"),
        ({"inputs": 8}, "amodal", "which cannot be amodal. Give --task depth"),
        ({"inputs": 12}, "flow", "which cannot be flow"),
        ({"inputs": 16}, "depth", "No task here has as many"),
        ({"inputs": 8, "rows": 5}, "depth", "embedding_table.weight is .5, 64."),
        ({"inputs": 9}, "depth", "x_embedder.proj.weight is"),
    ],
)
def test_what_the_file_cannot_be_is_refused(published, layout, task, message):
    weights = Weights(published.dense(**layout), Path("w.pt"))
    with pytest.raises(UserError, match=message):
        import_single(weights, Wishes(task=task))


def test_a_class_conditional_model_has_no_other_task(published, tmp_path, capsys):
    from stepsight.cli.main import main

    torch.save(published.dense(rows=3), tmp_path / "w.pt")
    flags = ["--task", "depth", "--out", str(tmp_path / "out")]
    assert main(["convert", "import", str(tmp_path / "w.pt"), *flags]) == 2
    assert "takes no condition image" in capsys.readouterr().err
