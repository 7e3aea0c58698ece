"""The door for those who want samples and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

import stepsight
from stepsight.errors import UserError


def test_a_bare_import_is_enough_and_stays_light():
    code = "import stepsight, sys; stepsight.data.open; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_worlds_open_by_name_and_options():
    worlds = stepsight.data.open("scenes", split="eval", eval_count=3, size=(16, 24))
    assert len(worlds) == 3 and worlds[1].image.shape == (3, 16, 24)


def test_what_is_unknown_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="nyuv2"):
        stepsight.data.open("nyuv3", str(tmp_path))
    with pytest.raises(UserError, match="no option 'spit'"):
        stepsight.data.open("nyuv2", str(tmp_path), spit="test")
