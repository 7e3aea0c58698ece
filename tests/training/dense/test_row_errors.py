"""The errors of a batch's rows, and their gradient: against a loop over single rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepsight.diffusion.objective import Diffusion
from stepsight.models.codec import Pixels
from stepsight.training.dense.batches import levels_and_noise
from stepsight.training.dense.errors import Coding, RowErrors
from stepsight.training.dense.rows import Rows

TASKS = ("depth", "flow", "amodal", "semantic")


class Seeing(nn.Module):
    """A network in float64 whose answer depends on everything that it may depend on."""

    looks, stride = True, 1

    def __init__(self, run: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        layout, width = run.pipeline.layout, run.pipeline.layout.target
        self.see = nn.Conv2d(layout.cond, width, 1)
        self.feel = nn.Conv2d(max(layout.features, 1), width, 1)
        self.again = nn.Conv2d(max(layout.looked, 1), width, 1)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.label, self.time = nn.Embedding(layout.labels + 1, width), nn.Linear(1, width)
        self.encodings, self.calls = 0, 0
        self.double()

    def encode(
        self,
        cond: Tensor,
        label: Tensor,
        features: Tensor | None = None,
        rows: Tensor | None = None,
        pictures: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        self.encodings += 1
        seen = self.see(cond).tanh() + self.label(label)[:, :, None, None]
        if features is None:
            return (seen,)
        felt = F.interpolate(self.feel(features), cond.shape[-2:]).tanh()
        return (seen + felt if rows is None else seen.index_add(0, rows, felt),)

    def forward(
        self,
        x: Tensor,
        cond: Tensor | tuple[Tensor, ...],
        time: Tensor,
        label: Tensor,
        features: Tensor | None = None,
        looked: tuple[Tensor, Tensor | None] | None = None,
    ) -> Tensor:
        (seen,) = self.encode(cond, label, features) if isinstance(cond, Tensor) else cond
        self.calls += 1
        if looked is not None:
            maps, rows = looked
            again = F.interpolate(self.again(maps), x.shape[-2:]).tanh()
            seen = seen + again if rows is None else seen.index_add(0, rows, again)
        moment = self.time(time.double()[:, None] / 1000)[:, :, None, None]
        return self.mix((x + seen * (1 + moment)).tanh())


def doubled(value: Any) -> Any:
    """float32 tensors in float64, in the values of training too."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if value is None or isinstance(value, list):
        return value
    names = ("x", "cond", "features", "valid", "t", "noise", "importance", "coded", "noisy", "deep")
    own = {name: doubled(getattr(value, name)) for name in names if hasattr(value, name)}
    return replace(value, **own)


def prepared(run: Any, step: int, pictures: range) -> tuple[list[Coding], Rows]:
    """A micro-batch of a run."""
    parts = run.objective.read(run.feed, run.feed.draw(step), step, pictures)
    return run.objective.prepare(parts, step, pictures)


def coded(run: Any, step: int, pictures: range) -> tuple[list[Coding], Rows]:
    """The same in float64."""
    codings, rows = prepared(run, step, pictures)
    return [doubled(one) for one in codings], doubled(rows)


class Naive:
    """The errors of a micro-batch, row by row, in the formulas of rectified flow."""

    def __init__(self, net: Seeing, prediction: str = "x", detached: bool = True) -> None:
        self.net, self.prediction, self.detached = net, prediction, detached

    def errors(self, parts: Sequence[Coding], rows: Rows) -> Tensor:
        """ "tasks 2"."""
        return torch.stack([self._of_task(part, rows) for part in parts])

    def _of_task(self, part: Coding, rows: Rows) -> Tensor:
        total, count = torch.zeros(2, dtype=torch.float64), len(part.t) // part.task.splits
        start = rows.start.tolist()
        rollouts = {start[at]: number for number, at in enumerate(rows.rollouts.tolist())}
        for row in range(len(part.t)):
            picture, errors = row % count, torch.zeros(2, dtype=torch.float64)
            if picture not in start:
                noise, t = part.noise[row], part.t[row]
                x_t = (1 - t) * self._target(part, row) + t * noise
                errors[1] = self._error(part, row, x_t, t, 1.0)[1]
            else:
                noisy = rows.noisy[start.index(picture)]
                z, one = part.noise[row] * noisy, torch.ones((), dtype=torch.float64)
                answer, errors[0] = self._error(part, row, z, one, noisy)
                if picture in rollouts:
                    deep = None if rows.deep is None else rows.deep[rollouts[picture]]
                    x_t = self._rolled_out(part, row, answer, z, noisy, deep)
                    errors[1] = self._error(part, row, x_t, part.t[row], noisy)[1]
            total = total + errors
        return total

    def _rolled_out(
        self, part: Coding, row: int, x0: Tensor, z: Tensor, noisy: Tensor, deep: Tensor | None
    ) -> Tensor:
        t = part.t[row]
        x0 = x0.detach() if self.detached else x0
        if deep is None:
            return (1 - t) * x0 + t * z
        before = t + (1 - t) * deep
        x = (1 - before) * x0 + before * z
        x0, _ = self._error(part, row, x, before, noisy)
        x0 = x0.detach() if self.detached else x0
        return (1 - t) * x0 + t * (x - (1 - before) * x0) / before

    def _target(self, part: Coding, row: int) -> Tensor:
        assert part.coded.x is not None
        return part.coded.x[row]

    def _error(
        self, part: Coding, row: int, x: Tensor, t: Tensor, temperature: Any
    ) -> tuple[Tensor, Tensor]:
        """The answer x0 to one row, and its error."""
        c, one = part.coded, slice(row, row + 1)
        looked = None
        if c.look is not None:
            known = (1 - t) * x / ((1 - t) ** 2 + (temperature * t) ** 2).clamp_min(1e-12)
            looked = (c.look(known[None], c.cond[one]), None)
        features = None if c.features is None else c.features[one]
        told = 1000 * t[None]  # published levels go to 1000
        output = self.net(x[None], c.cond[one], told, c.label[one], features, looked)[0]
        truth, valid = self._target(part, row), c.valid[row]  # type: ignore[index]
        x0 = output if self.prediction == "x" else x - t * output
        if part.importance is None:
            noise = (x - (1 - t) * truth) / t
            target = truth if self.prediction == "x" else noise - truth
            return x0, ((output - target) ** 2 * valid).sum()
        weight, used = (valid * part.importance[row])[None, : part.used], part.used
        return x0, part.task.errors(x0[None, :used], truth[None, :used], weight)[0]


def begin(lab, folder, tasks: Sequence[str] = TASKS, **changes: Any) -> Any:
    """A run that has not made a step."""
    return lab.begin(lab.config(tasks, **changes), folder)


def gradient(net: nn.Module, errors: Tensor) -> Tensor:
    """Of the errors, weighed so that no two of them can be mistaken for another, "p"."""
    weights = torch.arange(1, errors.numel() + 1).reshape(errors.shape)
    found = torch.autograd.grad((errors * weights).sum(), list(net.parameters()), allow_unused=True)
    return torch.cat([one.flatten() for one in found if one is not None])


CASES = [
    ("task", "x", TASKS, {}),
    ("squared", "x", TASKS, {}),
    ("squared", "v", ("depth", "flow"), {}),
    ("task", "x", ("flow",), {"components": "separate", "cost_volume": False}),
    ("task", "x", ("depth", "flow"), {"look": False}),
    ("task", "x", ("semantic", "flow"), {"cost_volume": False}),
]


@pytest.mark.parametrize("deep", [0.0, 1.0], ids=["shallow", "deep"])
@pytest.mark.parametrize(("loss", "prediction", "tasks", "flow"), CASES)
def test_errors_and_gradient_are_those_of_a_loop_over_rows(
    lab, tmp_path, loss, prediction, tasks, flow, deep
):
    rows = {"deep": deep, "noisy": 0.5}
    rows |= {} if prediction == "x" else {"rollout": 0.0}
    config = lab.config(tasks, loss=loss, rows=rows)
    if flow:
        config.tasks["flow"] = replace(config.tasks["flow"], **flow)
    diffusion = replace(config.diffusion, prediction=prediction)
    run = lab.begin(replace(config, diffusion=diffusion), tmp_path)
    net = Seeing(run)
    objective = RowErrors(net, run.pipeline.diffusion, Pixels())
    naive = Naive(net, prediction)
    for step, pictures in ((0, range(8)), (1, range(2, 6)), (2, range(7, 8))):
        parts, rows = coded(run, step, pictures)
        if len(pictures) == 8:
            assert 0 < rows.noisy.sum() < len(rows.noisy)
            assert (rows.deep is not None) == bool(deep)
            assert len(rows.rollouts) == (2 if prediction == "x" else 0)
        found, expected = objective(parts, rows), naive.errors(parts, rows)
        torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-6)
        own, exact = gradient(net, found), gradient(net, expected)
        torch.testing.assert_close(own, exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("deep", [0.0, 1.0], ids=["shallow", "deep"])
def test_no_gradient_flows_through_what_was_rolled_out(lab, tmp_path, deep):
    run = begin(lab, tmp_path, ("depth", "flow"), rows={"deep": deep})
    net = Seeing(run)
    parts, rows = coded(run, 0, range(8))
    found = gradient(net, RowErrors(net, run.pipeline.diffusion, Pixels())(parts, rows))
    kept, through = (
        gradient(net, Naive(net, detached=detached).errors(parts, rows))
        for detached in (True, False)
    )
    assert (found - kept).norm() < 1e-5 * kept.norm()
    assert (found - through).norm() > 1e-3 * kept.norm()


def test_a_condition_is_encoded_once_a_micro_batch(lab, tmp_path):
    for deep, calls in ((0.0, 2), (1.0, 3)):
        run = begin(lab, tmp_path / str(deep), rows={"deep": deep})
        net = Seeing(run)
        RowErrors(net, run.pipeline.diffusion, Pixels())(*coded(run, 0, range(8)))
        assert (net.encodings, net.calls) == (1, calls)  # for all tasks and kinds of rows


def test_a_picture_is_read_once_for_all_tasks_and_not_for_a_generator(lab, tmp_path):
    """Who makes pictures sees a blank one, in a batch with others as alone."""
    read: list[Tensor] = []
    for tasks in (TASKS, ("depth", "image"), ("image",)):
        run = begin(lab, tmp_path / "+".join(tasks), tasks, **lab.plain)
        run.net.encoder.register_forward_hook(lambda _, inputs, out: read.append(inputs[0]))
        parts, rows = prepared(run, 0, range(8))
        run.objective.errors(parts, rows)
        assert parts[0].batch is not None
        images = parts[0].batch.image
    assert [len(pictures) for pictures in read] == [8, 9, 1]
    assert torch.equal(read[0], images) and not read[2].any()
    blank = [picture for picture in read[1] if not picture.any()]
    assert len(blank) == 1


def test_of_noised_truth_alone_the_squared_error_is_the_diffusions_own(lab, tmp_path):
    run = begin(lab, tmp_path, **lab.plain)
    with torch.no_grad():
        for p in run.net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    parts = run.objective.read(run.feed, run.feed.draw(0), 0, range(8))
    codings, rows = run.objective.prepare(parts, 0, range(8))
    objective = run.objective.errors
    errors, counted = objective(codings, rows), objective.counts(codings, rows)
    assert not errors[:, 0].any() and not counted[:, 0].any()
    for number, part in enumerate(parts):
        key = [part.task.name] if number else []
        t, noise = levels_and_noise(run.pipeline, 0, range(8), part, key)
        total, count = Diffusion(run.config.diffusion).loss(run.net, part.coded, t, noise)
        torch.testing.assert_close(errors[number, 1], total.sum(), rtol=1e-5, atol=0)
        assert counted[number, 1] == count.sum() > 0


def test_errors_count_the_valid_entries_of_the_pictures_they_are_of(lab, tmp_path):
    run = begin(lab, tmp_path, ("depth", "semantic"))
    parts, rows = coded(run, 0, range(8))
    found = run.objective.errors.counts(parts, rows)
    for part, own in zip(parts, found):
        valid = part.coded.valid
        assert own[0] == sum(valid[at].sum() for at in rows.start.tolist())
        assert own[1] == sum(valid[at].sum() for at in rows.later.tolist())
    assert len(set(found.flatten().tolist())) == 4


def test_every_task_of_a_picture_has_levels_and_noise_of_its_own(lab, tmp_path):
    """Those of the first task are those of a run of it alone."""
    both = begin(lab, tmp_path / "both", ("depth", "semantic"))
    alone = begin(lab, tmp_path / "alone", ("depth",))
    (depth, semantic), _ = coded(both, 2, range(8))
    (single,), _ = coded(alone, 2, range(8))
    assert torch.equal(depth.t, single.t)
    assert not torch.isin(depth.t, semantic.t).any()
    assert (depth.noise - semantic.noise).abs().amax(dim=(1, 2, 3)).min() > 0.1
