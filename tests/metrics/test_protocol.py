"""Protocols: the table, stable ids, and lookups that help."""

from dataclasses import replace

import pytest

from stepsight.errors import UserError
from stepsight.metrics.protocol import PROTOCOLS, default_for, get

# An id is quoted beside published numbers: it may change only when the scoring does.
GOLDEN = """
depth-affine-log@fa32a147
depth-affine@4e7721d9
depth-metric@b37f1681
flow-epe@22967562
amodal-iou@bfb1af9e
semantic-miou@9b640fcb
normals-angle@9e02e031
image-energy@85811561
"""


def test_ids_are_stable():
    assert [row.id for row in PROTOCOLS.values()] == GOLDEN.split()


def test_the_id_follows_what_changes_a_score_and_nothing_else():
    row = get("depth-affine-log")
    assert replace(row, description="other words").id == row.id
    changes = {"alignment": "scale", "space": "depth", "max_depth": 65.0, "averaging": "pooled"}
    ids = {replace(row, **{field: value}).id for field, value in changes.items()}
    assert len(ids | {row.id}) == 5


@pytest.mark.parametrize(
    "task,name",
    [
        ("depth", "depth-affine-log"),
        ("flow", "flow-epe"),
        ("amodal", "amodal-iou"),
        ("semantic", "semantic-miou"),
        ("normals", "normals-angle"),
        ("image", "image-energy"),
    ],
)
def test_default_of_each_task(task, name):
    assert default_for(task) is PROTOCOLS[name]


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="no protocol 'depth-afine'.*'depth-affine'"):
        get("depth-afine")
    with pytest.raises(UserError, match="'semantics'.*'semantic'"):
        default_for("semantics")
