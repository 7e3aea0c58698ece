"""Settings of a data set given as key=value: read as in a file, refused as in a file."""

from __future__ import annotations

import pytest

from stepsight.cli.sources import with_options
from stepsight.data.readers.config import FolderSettings, SintelSettings
from stepsight.errors import UserError


def test_values_are_read_by_their_type():
    settings = FolderSettings(root="r", size=(32, 48))
    found = with_options(settings, ["depth_scale=256", "classes=7", "list=a=b.jsonl"])
    assert (found.depth_scale, found.classes, found.list) == (256.0, 7, "a=b.jsonl")
    assert isinstance(found, FolderSettings) and (found.root, found.size) == ("r", (32, 48))
    assert with_options(SintelSettings(), ["render=final"]) == SintelSettings(render="final")
    assert with_options(settings, []) == settings


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ("depth_scale", "key=value"),
        ("depth_scal=1", "depth_scale"),
        ("classes=many", "classes"),
        ("list=[a", "list"),
    ],
)
def test_what_cannot_be_is_refused(pair, reason):
    with pytest.raises(UserError, match=reason):
        with_options(FolderSettings(), [pair])
