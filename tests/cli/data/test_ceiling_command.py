"""`stepsight data ceiling`: table, ranking, JSON and picture."""

from __future__ import annotations

import json

import pytest
import torch

from stepsight.cli import main
from stepsight.cli.data.ceiling import ceiling_text, ranking
from stepsight.data.decoding.images import read_image
from stepsight.evaluation.bounds import Ceiling
from stepsight.models.vae import build_vae

SMALL = ["data", "ceiling", "--level", "easy", "--size", "16", "24", "--images", "3"]


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    build_vae("vae-tiny").save_pretrained(folder)
    return str(folder)


def semantic(encoding: str, codec: str, value: float, latents: int = 4) -> Ceiling:
    return Ceiling(
        task="semantic",
        encoding=encoding,
        codec=codec,
        protocol="semantic-miou@0",
        channels=3,
        latents=latents,
        in_loss=0.5,
        metric="miou",
        metrics={"miou": value},
    )


def test_pixels_alone_make_a_table_and_a_picture(capsys, tmp_path):
    assert main.main(SMALL) == 0
    shown = capsys.readouterr().out
    for words in ("depth  (depth-affine-log@", "flow  (flow-epe@", "EPE [px], lower is better"):
        assert words in shown
    line = next(line for line in shown.splitlines() if line.startswith("  palette"))
    assert line.split() == ["palette", "3", "3", "100.0%", "1.00"]
    assert "survives" not in shown and "ceiling.png" in shown
    assert read_image(tmp_path / "ceiling.png").shape[1] > 9 * 16


def test_a_vae_adds_both_dtypes_to_the_json(capsys, vae, tmp_path):
    assert main.main([*SMALL, "--codec", vae, "--json", "--out", "deep/a.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["data"], found["images"], found["size"]) == ("scenes", 3, [16, 24])
    assert found["codec"].startswith("AutoencoderKL-") and found["picture"] == "deep/a.png"
    assert (tmp_path / "deep" / "a.png").is_file()
    assert [one["codec"] for one in found["ceilings"][:3]] == ["pixels", "float32", "bfloat16"]
    assert len(found["ceilings"]) == 33
    for one in found["ceilings"]:
        assert one["metric"] in one["metrics"] and "@" in one["protocol"]
        assert one["codec"] != "pixels" or one["latents"] == one["channels"]
    latents = {o["encoding"]: o["latents"] for o in found["ceilings"] if o["codec"] == "float32"}
    assert latents["onehot"] == 12 and latents["palette"] == latents["log"] == 4


def test_the_table_ranks_encodings_by_what_the_vae_leaves():
    group = [
        semantic("onehot", "pixels", 1.0, 7),
        semantic("onehot", "float32", 0.95, 12),
        semantic("bits", "float32", 0.612),
        semantic("palette", "float32", 0.97),
    ]
    expected = "palette 0.970 (4 latents), then onehot 0.950 (12 latents), bits 0.612 (4 latents)"
    assert ranking(group) == [f"  survives best: {expected}"]
    assert expected in ceiling_text(group)


def test_of_equal_scores_as_printed_the_one_with_fewer_latents_comes_first():
    group = [semantic("onehot", "float32", 0.97001, 12), semantic("bits", "float32", 0.97)]
    assert ranking(group)[0].startswith("  survives best: bits")


@pytest.mark.parametrize(
    "group",
    [
        [semantic("onehot", "pixels", 1.0), semantic("bits", "pixels", 1.0)],
        [semantic("onehot", "float32", 0.9), semantic("bits", "float32", float("nan"))],
    ],
)
def test_there_is_no_ranking_without_a_choice(group):
    assert ranking(group) == []


def test_scores_of_different_protocols_stand_in_different_tables(capsys):
    assert main.main(SMALL) == 0
    tables = capsys.readouterr().out.split("encoding ")
    assert [("linear" in one, "log  " in one) for one in tables[1:3]] == [(1, 0), (0, 1)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--codec", "/nowhere"], "/nowhere is no folder"),
        (["--images", "0"], "--images 0: must be at least 1"),
        (["--out", "a.txt"], "name a .png file"),
    ],
)
def test_what_cannot_be_done_is_refused(capsys, flags, message):
    assert main.main(["data", "ceiling", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_size_the_vae_cannot_take_is_refused(capsys, vae):
    flags = ["--size", "18", "24", "--images", "1", "--codec", vae]
    assert main.main(["data", "ceiling", *flags]) == 2
    assert "height 18 is not a multiple of 4" in capsys.readouterr().err
