"""What would stop a run later is found before anything of an older run is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepsight import checkpoint
from stepsight.conversion.upcycle import upcycle
from stepsight.conversion.write import write
from stepsight.data.table import settings_for
from stepsight.errors import UserError
from stepsight.models.config import CodecSettings
from stepsight.report.console import Console
from stepsight.training.fit import preflight


@pytest.fixture
def old(lab, tmp_path):
    """A finished run of depth."""
    return lab.fit(lab.config(("depth",), images=8), tmp_path / "old")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_latents(config, folder):
    return replace(config, codec=CodecSettings(path=str(folder)))


def test_weights_of_another_backbone_do_not_cost_the_run_that_would_be_overwritten(lab, old):
    before = contents(old)
    config = lab.config(("depth",))
    wider = replace(config, model=replace(config.model, name="split-32"))
    with pytest.raises(UserError, match="another model"):
        lab.fit(wider, old, init_from=str(old), overwrite=True)
    assert contents(old) == before


def test_a_foreign_latent_cache_is_found_first(lab, old, tmp_path):
    settings = {"latents": str(tmp_path / "cache"), "images": 8, "loss": "squared"}
    lab.fit(lab.config(("depth",), **settings), tmp_path / "first")
    config = lab.config(("depth",), **settings)
    config.tasks["depth"] = replace(config.tasks["depth"], space="inverse")
    before = contents(old)
    with pytest.raises(UserError, match="this latent cache is of tasks .*'log'.*'inverse'"):
        lab.fit(config, old, overwrite=True)
    assert contents(old) == before


def test_a_weight_too_small_for_a_turn_is_found_first(lab, tmp_path, monkeypatch):
    config = lab.config(("depth", "flow"))
    config.data["folder"] = settings_for("folder", root="/data", weight=1e-3, size=(16, 16))
    folder = type("Folder", (lab.Source,), {"name": "folder"})()
    opened = {"scenes": lab.source, "folder": folder}
    monkeypatch.setattr("stepsight.training.spec.open_sources", lambda *_: opened)
    with pytest.raises(UserError, match=r"weight of depth\+flow on folder is under 1/60"):
        preflight(config, tmp_path / "run")


def test_a_task_of_little_weight_still_learns_from_the_pictures_of_the_others(lab, tmp_path):
    config = lab.config(("depth", "flow"), images=8)
    config.tasks["depth"] = replace(config.tasks["depth"], weight=1e-3)
    feed = lab.train(config, tmp_path).feed
    (stream,) = feed.mixture.streams
    assert stream.tasks == ("depth", "flow")
    assert feed.weights(stream).tolist() == pytest.approx([2 * 1e-3 / 1.001, 2 / 1.001])


def test_a_run_that_goes_on_keeps_its_own_vae(lab, tmp_path, vae_of):
    """The folder it was read from may change or vanish; a run in other latents is refused."""
    folder = tmp_path / "vae"
    vae_of(0).save(folder)
    config = in_latents(lab.config(("depth",), images=8, loss="squared"), folder)
    run = lab.fit(config, tmp_path / "run")
    name = checkpoint.read(run).meta["codec"]
    vae_of(1).save(folder)
    longer = replace(config, training=replace(config.training, images=16))
    again = checkpoint.read(lab.fit(longer, run, resume="auto"), prefer="last")
    assert again.meta["codec"] == name and again.meta["images_seen"] == 16
    with pytest.raises(UserError, match=f"trained in the latents of {name}"):
        lab.fit(config, tmp_path / "new", init_from=str(run))
    assert not (tmp_path / "new").exists()


def test_experts_keep_the_rule_their_weights_were_trained_by(lab, tmp_path):
    config = lab.config(("depth",), images=8)
    dense = replace(config, model=replace(config.model, name="DiT-Ti/8"))
    saved = checkpoint.read(lab.fit(dense, tmp_path / "dense"))
    write(upcycle(saved, 4, 2, "renormalised"), tmp_path / "mixed")
    model = replace(config.model, name="DiT-Ti/8-4E2A")
    with pytest.raises(UserError, match="expert_weights=renormalised, this run by softmax"):
        lab.fit(replace(config, model=model), tmp_path / "run", init_from=str(tmp_path / "mixed"))
    kept = replace(config, model=replace(model, expert_weights="renormalised"))
    lab.fit(kept, tmp_path / "run", init_from=str(tmp_path / "mixed"))


def test_the_validation_losses_of_the_past_are_not_forgotten(lab, tmp_path):
    config = lab.config(("depth",), images=16, validate_every=16)
    run = lab.fit(config, tmp_path / "run")
    known = checkpoint.read(run, prefer="last").meta["losses"]
    assert known["depth"] > 0
    longer = replace(config, training=replace(config.training, images=24, validate_every=0))
    learner = lab.begin(longer, tmp_path / "other").learner
    saved = checkpoint.read(run, prefer="last")
    assert learner.resume(saved, Console(enabled=False)).losses == known
