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
marigold-depth@8b2472e7
marigold-hypersim@c8509be4
marigold-vkitti@20657bae
marigold-nyu@b1c421a5
marigold-kitti@a7af8430
marigold-eth3d@678b6fca
marigold-scannet@ca359f4a
marigold-diode@693c3ef2
marigold-disparity@7f975310
lotus@2cd2a887
lotus-nyu@b66f7110
lotus-kitti@28cf7cb8
lotus-eth3d@54e7cac2
lotus-scannet@25ce99be
lotus-diode@e2fc3a10
depth-anything@ecc5f2c2
depth-anything-metric-hypersim@17a04bcb
depth-anything-metric-kitti@3e75655c
midas@705cac99
midas-nyu@1d2ffc2b
pixel-perfect-depth@71179ed2
monodepth2@e538185e
monodepth2-benchmark@5d9eaddc
da2k@c0cc3585
depth-pro-boundary@e7673d2a
depth-pro-boundary-recall@93ce2fe9
moge-metric@a002a0f8
moge-scale@3f2bac2d
moge-affine@44a83db2
moge-disparity@53246949
seed-release-normalised-depth@7e1ca384
temporal-affine-log@d1d5ffd2
temporal-metric@5f0c3bcb
flow-epe@22967562
raft-chairs@d20f9f0a
raft-sintel@78f0cab9
raft-kitti@4783eb5e
raft-things@cc059888
ptlflow@02086c96
sintel@e8d9e3f2
spring@6fede5f1
seed-release-per-axis-affine-flow-fit@aa0e074a
amodal-iou@bfb1af9e
pix2gestalt-per-object@45f30aaa
pix2gestalt-pooled@370dc4ff
semantic-miou@9b640fcb
ade20k@85fc3028
ade20k-challenge@7a2915d5
cityscapes@35ad3d24
cityscapes-benchmark@0c121fa7
voc@9b27a7ae
pq@b8568e78
coco-panoptic@c284d8b4
normals-angle@9e02e031
dsine@c1d91753
dsine-nyuv2@4264af0a
dsine-scannet@4682ec89
dsine-ibims@4c9ff32b
dsine-sintel@2e17d557
image-energy@85811561
"""


def test_ids_are_stable():
    assert [row.id for row in PROTOCOLS.values()] == GOLDEN.split()


def test_the_id_follows_what_changes_a_score_and_nothing_else():
    row = get("depth-affine-log")
    assert replace(row, description="other words").id == row.id
    assert replace(row, source="elsewhere", metrics=("rmse",)).id == row.id
    changes = {
        **{"alignment": "scale", "space": "depth", "max_depth": 65.0, "averaging": "pooled"},
        **{"crop": "kitti_benchmark", "mask": "garg", "working": 768, "pooled": ("rmse",)},
        **{"full_view": True, "data": "nyuv2", "split": "test", "count": 654, "strict": True},
        **{"selects": False, "clip": "none", "scored_in": "disparity", "epsilon": 1e-5},
        **{"min_valid": 10, "fit_positive": True, "fit_width": 1024},
    }
    ids = {replace(row, **{field: value}).id for field, value in changes.items()}
    assert len(ids | {row.id}) == len(changes) + 1


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


def test_the_truth_that_a_protocol_is_scored_against():
    assert get("cityscapes").truths({"labels"}) == {"labels"}
    assert get("cityscapes-benchmark").truths({"labels"}) == {"labels", "instances"}
    assert get("depth-pro-boundary-recall").truths({"depth"}) == {"amodal"}
