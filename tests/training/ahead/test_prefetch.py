"""Batches that a thread makes ahead: the same ones, its errors, and an end that does not hang."""

from __future__ import annotations

import threading
import time
from typing import Any
from unittest import mock

import pytest
import torch

from stepsight.errors import UserError
from stepsight.training import loop
from stepsight.training.ahead import prefetch
from stepsight.training.ahead.prefetch import Prefetcher


@pytest.fixture
def threaded(monkeypatch):
    """Runs make their batches in a thread, as on a GPU."""
    made = []

    def of(*arguments: Any) -> Prefetcher:
        made.append(Prefetcher(*arguments, threaded=True))
        return made[-1]

    monkeypatch.setattr(prefetch, "Prefetcher", of)
    return made


def alive() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "prefetch" and one.is_alive()]


@pytest.mark.parametrize("kind", ["bank", "latents"])
def test_a_thread_changes_no_loss(lab, tmp_path, threaded, kind):
    changes = {"latents": str(tmp_path / "latents")} if kind == "latents" else lab.plain
    config = lab.config(("depth", "flow"), **{"loss": "squared"} | changes)
    ahead = lab.train(config, tmp_path / "ahead")
    with mock.patch.object(prefetch, "Prefetcher", Prefetcher):
        inline = lab.train(config, tmp_path / "inline")
    assert len(threaded) == 1 and not alive()
    assert lab.losses(tmp_path / "ahead") == lab.losses(tmp_path / "inline")
    assert torch.equal(ahead.weights(), inline.weights())


def test_it_works_on_the_next_batch_only_while_this_one_is_learnt_from(lab, tmp_path):
    run = lab.begin(lab.config(("depth",)), tmp_path / "run")
    seen, read = [], run.objective.read
    run.objective.read = lambda *of: (
        seen.append((of[2], threading.current_thread().name)),
        read(*of),
    )[1]
    ahead = Prefetcher(run.objective, run.feed, range(3), threaded=True)
    for step in range(3):
        assert ahead.take(step).draw == run.feed.mixture.draw(step)
        deadline = time.monotonic() + 10
        while len(seen) < min(step + 2, 3) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert seen == [(at, "prefetch") for at in range(min(step + 2, 3))]
    ahead.close()
    assert not alive()


def test_its_errors_come_with_their_own_words_and_the_step_before_them_is_made(
    lab, tmp_path, threaded
):
    run = lab.begin(lab.config(("depth",)), tmp_path / "run")
    prepare = run.objective.prepare

    def failing(read: Any, step: int, rows: range) -> Any:
        if step == 3:
            raise UserError("the sample that cannot be read")
        return prepare(read, step, rows)

    run.objective.prepare = failing
    with pytest.raises(UserError, match="^the sample that cannot be read$"):
        run.train()
    assert run.progress.step == 3 and not alive()


def test_an_error_of_the_step_ends_it_though_a_read_hangs(lab, tmp_path, threaded, monkeypatch):
    monkeypatch.setattr(prefetch, "ENDING", 0.1)
    run, let_go = lab.begin(lab.config(("depth",)), tmp_path / "run"), threading.Event()
    read = run.objective.read

    def hanging(*of: Any) -> Any:
        if of[2] == 2:
            let_go.wait(60)
        return read(*of)

    run.objective.read = hanging
    gradient = loop.gradient

    def failing(*of: Any) -> Any:
        if run.progress.step == 1:
            raise UserError("of the step")
        return gradient(*of)

    monkeypatch.setattr(loop, "gradient", failing)
    began = time.monotonic()
    with pytest.raises(UserError, match="of the step"):
        run.train()
    assert time.monotonic() - began < 30
    let_go.set()
