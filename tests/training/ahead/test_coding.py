"""Latents made ahead of a run are those that it reads; stopped on the way, they go on."""

from __future__ import annotations

import pytest

from stepsight import signals
from stepsight.cli.main import main
from stepsight.data.cache import store as store_module
from stepsight.errors import UserError
from stepsight.report.console import Console
from stepsight.training import feed
from stepsight.training.ahead import coding
from stepsight.training.ahead.coding import make_latents
from stepsight.training.latents import Latents

QUIET = Console(enabled=False)
WORLDS = [
    "--data.scenes.size",
    "16",
    "16",
    "--data.scenes.count",
    "40",
    "--training.images",
    "16",
    "--tasks.depth.weight",
    "1",
]


@pytest.fixture
def config(lab, tmp_path):
    return lab.config(("depth", "flow"), loss="squared", latents=str(tmp_path / "cache"), images=8)


def test_a_run_reads_what_was_made_ahead_of_it(lab, config, tmp_path, monkeypatch):
    """Of worlds, whose first epoch goes in order, as many as a run of so many pictures makes."""
    monkeypatch.setattr(feed, "AHEAD", 16)
    with lab.serving():
        (made,) = make_latents(config, QUIET)
        (again,) = make_latents(config, QUIET)
    assert (made.samples, made.made, made.bad, made.tasks) == (16, 16, 0, ("depth", "flow"))
    assert again.made == 0 and "16 samples for depth, flow" in again.words()
    monkeypatch.setattr(Latents, "_make", None)
    assert len(lab.losses(lab.fit(config, tmp_path / "run"))) == 1


def test_who_is_asked_to_end_goes_on_where_it_was(lab, config, monkeypatch):
    monkeypatch.setattr(store_module, "BLOCK", 4)
    with lab.serving():
        monkeypatch.setattr(signals, "requested", lambda: "SIGTERM")
        with pytest.raises(signals.Preempted, match="SIGTERM: what is made stays in"):
            list(make_latents(config, QUIET))
        monkeypatch.setattr(signals, "requested", lambda: "")
        (rest,) = make_latents(config, QUIET)
    assert rest.made == 28


def test_a_disk_that_is_too_small_is_refused_first(lab, config, monkeypatch):
    monkeypatch.setattr(coding.shutil, "disk_usage", lambda path: type("", (), {"free": 1000}))
    with lab.serving(), pytest.raises(UserError, match="need another 0.0 GB, 0.0 GB are free"):
        list(make_latents(config, QUIET))


def test_the_command_makes_them(tmp_path, capsys, monkeypatch):
    for name, value in (("OMP_NUM_THREADS", "1"), ("ACCELERATE_USE_CPU", "true")):
        monkeypatch.setenv(name, value)  # as the command does, for longer than the test
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")
    folder = str(tmp_path / "cache")
    flags = ["data", "latents", *WORLDS, "--training.loss", "squared", "--training.latents", folder]
    assert main(flags) == 0
    assert f"{folder}/scenes: 40 samples for depth" in capsys.readouterr().out
    assert main(flags) == 0 and "0 made now" in capsys.readouterr().out
    assert main(flags[:-2]) == 2
    assert "name the folder with --training.latents" in capsys.readouterr().err
