"""Malformed folders, and flags that nothing would read, are refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepsight.conversion.dit import Wishes
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.errors import UserError

Folder = Callable[..., Path]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("default_denoising_steps", 0),
        ("default_denoising_steps", 2.5),
        ("default_processing_resolution", -3),
        ("default_processing_resolution", []),
    ],
)
def test_numbers_that_are_none_are_refused(key: str, value: object, diffusers_folder: Folder):
    with pytest.raises(UserError, match=f"model_index.json: {key} is .* whole number from"):
        import_published(diffusers_folder(**{key: value}))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("model_index.json", {"scheduler": 3}),
        ("unet/config.json", {"transformer_layers_per_block": []}),
        ("vae/config.json", {"scaling_factor": None}),
        ("scheduler/scheduler_config.json", {"beta_schedule": []}),
    ],
)
def test_values_of_a_wrong_kind_are_no_traceback(
    file: str, change: dict[str, Any], diffusers_folder: Folder
):
    path = diffusers_folder() / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="not as those of a published folder"):
        import_published(path.parents[0 if file == "model_index.json" else 1])


def test_flags_that_nothing_reads_are_refused(diffusers_folder: Folder, tmp_path: Path):
    with pytest.raises(UserError, match=r"--domain says nothing .* it takes --family\."):
        import_published(diffusers_folder(), Wishes(domain="outdoor"))
    write(import_published(tmp_path / "published"), tmp_path / "run")
    with pytest.raises(UserError, match=r"--family says nothing .* none of these flags"):
        import_published(tmp_path / "run", Wishes(family="marigold-depth"))


def test_a_copy_of_an_imported_run_keeps_and_tells_its_profile(
    diffusers_folder: Folder, tmp_path: Path
):
    first = import_published(diffusers_folder())
    write(first, tmp_path / "run")
    assert import_published(tmp_path / "run").profile == first.profile is not None
