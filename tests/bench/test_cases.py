"""Every bench at tiny sizes, and that unequal work is not timed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import stepsight.bench.cases
from stepsight.bench.cases import experts, step
from stepsight.bench.peers import diffusers_dit
from stepsight.bench.peers.dit import PlainDiT, fast_step, plain_step
from stepsight.bench.protocol import RATIOS, Row, Setup
from stepsight.bench.table import BENCHES, bench
from stepsight.models.config import DiTSize, parse
from stepsight.models.layers import position_table

TINY = Setup(tiny=True)
STARTS_PROCESSES = ("startup", "checkpoint")
STORED = Path(__file__).parents[2] / "benchmarks" / "results" / "ratios.json"


def test_a_bench_is_one_file_in_the_table():
    files = {path.stem for path in Path(stepsight.bench.cases.__path__[0]).glob("*.py")}
    assert files - {"__init__"} == set(BENCHES)


def check(rows: list[Row]) -> None:
    """Rows that mean something: a figure each, and a peer of 1 where one was timed."""
    assert rows and len({(row.case, row.side) for row in rows}) == len(rows)
    assert any(row.side.startswith("ours") for row in rows)
    for row in rows:
        assert row.kind in RATIOS and math.isfinite(row.ratio) and row.spread >= 0
        if row.ms:
            assert 0 < row.ms[1] <= row.ms[0] <= row.ms[2]
        if row.kind == "speed":
            peer = next(one for one in rows if (one.case, one.side) == (row.case, row.peer))
            assert peer.ratio == 1


@pytest.mark.parametrize("name", [n for n in BENCHES if n not in STARTS_PROCESSES])
def test_a_bench_runs(name: str):
    check(list(bench(name).run(TINY)))


@pytest.mark.slow
@pytest.mark.parametrize("name", STARTS_PROCESSES)
def test_a_bench_of_processes_runs(name: str):
    check(list(bench(name).run(TINY)))


def test_protocols_say_what_has_to_be_equal():
    for name in BENCHES:
        assert len(bench(name).PROTOCOL.split()) > 30


def test_another_mixture_is_not_timed(monkeypatch: pytest.MonkeyPatch):
    right = experts.masked_loop
    monkeypatch.setattr(experts, "masked_loop", lambda moe, x: 1.001 * right(moe, x))
    with pytest.raises(AssertionError, match="the mixture in float32"):
        list(experts.run(TINY))


def test_diffusers_own_frequencies_are_another_network(monkeypatch: pytest.MonkeyPatch):
    """As shipped, diffusers embeds time otherwise: were that forgotten, the bench would say so."""
    made = diffusers_dit.DiTTransformer2DModel.load_state_dict

    def as_shipped(net: torch.nn.Module, *given, **options):
        for block in net.transformer_blocks:  # type: ignore[union-attr]
            block.norm1.emb.time_proj.downscale_freq_shift = 1  # type: ignore[union-attr]
        return made(net, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(diffusers_dit.DiTTransformer2DModel, "load_state_dict", as_shipped)
    with pytest.raises(AssertionError, match="diffusers' DiT differ"):
        list(step.run(TINY))


def test_the_steps_of_dit_and_ours_descend_alike():
    """The same gradients, and steps that move every weight."""
    net, size = step.ours("DiT-32x2/2"), parse("DiT-32x2/2")
    assert isinstance(size, DiTSize) and all(p.any() for p in net.parameters())
    plain = PlainDiT(size, 12, 8, step.LABELS, position_table(4, 4, 32))
    plain.load_state_dict(net.state_dict(), strict=False)
    data = step.StepInputs.random(2, 8, "cpu")
    data.loss(plain).backward()
    F.mse_loss(data.ask_ours(net), data.truth).backward()
    wanted = dict(plain.named_parameters())
    for name, p in net.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(p.grad, wanted[name].grad, rtol=1e-4, atol=1e-8)
    for work, one in (
        (plain_step(plain, data.loss, 1.0), plain),
        (fast_step(plain, data.loss, 1.0, "cpu"), plain),
        (step.our_step(net, data, "muon", "bf16", "cpu"), net),
    ):
        before = [p.clone() for p in one.blocks.parameters()]  # type: ignore[union-attr]
        work()
        moved = zip(one.blocks.parameters(), before)  # type: ignore[union-attr]
        assert all((p != old).any() for p, old in moved)


@pytest.mark.skipif(not STORED.is_file(), reason="no ratios are stored")
def test_the_stored_ratios_are_of_the_benches_there_are():
    stored = json.loads(STORED.read_text())
    assert stored["format"] == 1 and stored["setup"]["size"] in ("cpu", "gpu")
    assert {row["bench"] for row in stored["rows"]} == set(stored["protocols"]) <= set(BENCHES)
    fields = {"bench", *asdict(Row("", "", "", 1.0))}
    assert all(row.keys() == fields for row in stored["rows"])
