"""Depth, flow, occlusion and normals of the worlds agree with each other and with closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from frames import Frames, frames_in, frames_of
from torch import Tensor

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.geometry.rigid import product, rotation, transpose, turn
from stepsight.data.scenes.kinds import NAMES
from stepsight.data.scenes.levels import LEVELS
from stepsight.data.scenes.parameters import World, draw_world
from stepsight.data.scenes.render import Rendering
from stepsight.data.scenes.source import Scenes

STANDARD = LEVELS["standard"]


@pytest.fixture(scope="module")
def frames() -> Frames:
    settings = ScenesSettings(size=(96, 128))
    return frames_in(Scenes(settings, "eval"), range(24))


def grid(height: int, width: int) -> Tensor:
    """Pixel coordinates u, v: "2 h w"."""
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([u, v]).float()


def warp(values: Tensor, flow: Tensor) -> Tensor:
    """`values` "b c h w" of the other frame, sampled bilinearly where `flow` leads."""
    height, width = values.shape[-2:]
    scale = torch.tensor([width - 1, height - 1]) / 2
    places = (grid(height, width) + flow).permute(0, 2, 3, 1) / scale - 1
    return F.grid_sample(values, places, align_corners=True, padding_mode="border")


def plain_world(outdoors: bool) -> World:
    """One empty world with a level camera, facing the front wall."""
    world = draw_world(replace(STANDARD, objects=0.0), 0, "eval", [0])
    world.camera.pitch[:] = world.camera.roll[:] = 0
    world.camera.turn[:] = world.camera.shift[:] = 0
    world.room.attitude[:] = np.eye(3)
    world.room.outdoors[:] = outdoors
    world.room.distances[:] = [1.5, 1.2, 3.0, 4.0, 7.0, 2.0]
    return world


def test_warping_the_second_frame_undoes_most_of_the_change(frames: Frames) -> None:
    first, second = frames.rgb.float(), frames.rgb2.float()
    visible = ~frames.occluded & frames.flow_valid
    warped = ((warp(second, frames.flow) - first).abs() * visible).sum()
    unwarped = ((second - first).abs() * visible).sum()
    assert warped < unwarped / 3


def test_flow_there_and_back_returns(frames: Frames) -> None:
    back = warp(frames.flow_back, frames.flow)
    error = (frames.flow + back).norm(dim=1, keepdim=True)[~frames.occluded]
    assert error.median() < 0.02
    assert (error < 0.5).float().mean() > 0.97


def test_visible_points_have_the_depth_seen_in_the_other_frame() -> None:
    world = draw_world(STANDARD, 0, "eval", range(8))
    scene = Rendering(world, (96, 96))
    there, visible = scene.landing, ~frames_of(scene).occluded[:, 0]
    moved = torch.where(there.inverse > 0.05, 1 / there.inverse, 20.0)
    seen = scene.second.hits.inverse.clamp_min(0.05).reciprocal()
    sampled = warp(seen[:, None], there.flow)[:, 0]
    close = (sampled / moved - 1).abs() < 0.03
    assert close[visible].float().mean() > 0.97
    inside = (there.x.abs() < scene.plane.x[..., -1:]) & (there.y.abs() < scene.plane.y[:, -1:])
    hidden = ~visible & inside
    assert (sampled < moved * 0.97)[hidden].float().mean() > 0.5  # something nearer is seen


def test_a_still_world_has_exactly_no_flow() -> None:
    still = frames_in(Scenes(ScenesSettings(size=(40, 56), displacement=0.0), "eval"), range(12))
    assert (still.flow == 0).all() and (still.flow_back == 0).all()
    assert torch.equal(still.rgb, still.rgb2)
    assert torch.equal(still.depth, still.depth2)
    assert not still.occluded.any() and not still.occluded_back.any()


def test_camera_only_motion_follows_from_depth_alone() -> None:
    """u' = K (T^-1 (Z K^-1 u - R^-1 shift)), written out with ordinary matrices."""
    world = draw_world(replace(STANDARD, camera_only=True), 0, "eval", range(6))
    frames = frames_of(Rendering(world, (48, 64)))
    camera = world.camera
    for i in range(6):
        x, y, z = np.eye(3)
        pitch, yaw, roll = camera.turn[i]
        after = rotation(z, roll) @ rotation(y, yaw) @ rotation(x, pitch)
        to_world = rotation(x, -camera.pitch[i]) @ rotation(z, camera.roll[i])
        fx, fy, cx, cy = frames.intrinsics[i].double().numpy()
        k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        valid = frames.depth_valid[i, 0].numpy()
        u = np.concatenate([grid(48, 64).numpy(), np.ones((1, 48, 64))])[:, valid]
        point = np.linalg.inv(k) @ u * frames.depth[i, 0].numpy()[valid]
        seen = k @ after.T @ (point - to_world.T @ camera.shift[i][:, None])
        flow = seen[:2] / seen[2] - u[:2]
        assert np.abs(flow - frames.flow[i].numpy()[:, valid]).max() < 2e-3


def test_depth_of_a_level_ground_and_a_wall() -> None:
    frames = frames_of(Rendering(plain_world(outdoors=True), (64, 64)))
    _, fy, _, cy = frames.intrinsics[0]
    below = torch.arange(64) - cy
    expected = 1.5 * fy / below  # z = h f / (v - cy)
    rows = (below > 0) & (expected < 20)
    torch.testing.assert_close(frames.depth[0, 0, rows, 5], expected[rows], rtol=1e-5, atol=0)
    assert not frames.depth_valid[0, 0, below < 0].any()
    assert (frames.labels[0, below < 0] == 1).all()

    frames = frames_of(Rendering(plain_world(outdoors=False), (64, 64)))
    wall = (frames.labels[0] == 2) & (frames.normals[0, 2] < -0.5)
    assert wall.sum() > 100
    torch.testing.assert_close(
        frames.depth[0, 0][wall], torch.full((int(wall.sum()),), 7.0), rtol=1e-6, atol=0
    )


def test_a_sphere_is_where_it_was_put() -> None:
    world = plain_world(outdoors=False)
    world.objects.active[0, 0] = True
    world.objects.kind[0, 0] = NAMES.index("ellipsoid")
    world.objects.half[0, 0] = 0.5
    world.objects.centre[0, 0] = [0.3, -0.2, 4.0]
    world.objects.attitude[0, 0] = np.eye(3)
    frames = frames_of(Rendering(world, (96, 96)))
    fx, fy, cx, cy = frames.intrinsics[0]
    u, v = grid(96, 96)
    ray = torch.stack([(u - cx) / fx, (v - cy) / fy, torch.ones(96, 96)])
    point = ray * frames.depth[0]
    offset = point - torch.tensor([0.3, -0.2, 4.0])[:, None, None]
    on = frames.instance[0] == 1
    assert (frames.labels[0][on] == 3).all() and on.sum() > 200
    torch.testing.assert_close(offset.norm(dim=0)[on], torch.full((int(on.sum()),), 0.5))
    torch.testing.assert_close(frames.normals[0][:, on], (offset / 0.5)[:, on], rtol=0, atol=1e-3)
    expected = torch.tensor([cx + fx * 0.3 / 4, cy - fy * 0.2 / 4])
    assert (torch.stack([u[on].mean(), v[on].mean()]) - expected).abs().max() < 1


def test_normals_are_unit_and_face_the_camera(frames: Frames) -> None:
    valid = frames.normals_valid[:, 0]
    length = frames.normals.norm(dim=1)
    torch.testing.assert_close(length[valid], torch.ones(int(valid.sum())))
    assert (length[~valid] == 0).all()
    height, width = valid.shape[1:]
    focal, cx, cy = (frames.intrinsics[:, i, None, None] for i in (0, 2, 3))
    u, v = grid(height, width)
    ray = torch.stack([(u - cx) / focal, (v - cy) / focal, torch.ones(24, height, width)], dim=1)
    assert ((ray * frames.normals).sum(1)[valid] < 1e-3).all()


def test_normals_of_planes_agree_with_the_depth(frames: Frames) -> None:
    """A plane n . X = c has 1/Z affine in the pixel, with slopes proportional to nx and ny."""
    inverse = frames.depth[:, 0].reciprocal()
    focal, cx, cy = (frames.intrinsics[:, i, None, None] for i in (0, 2, 3))
    u, v = grid(*inverse.shape[1:])
    n, labels = frames.normals, frames.labels
    flat = (labels <= 2) & frames.depth_valid[:, 0]
    same = (n[..., :-1, :-1] - n[..., 1:, 1:]).abs().amax(1) < 1e-6
    here = flat[:, :-1, :-1] & flat[:, 1:, 1:] & flat[:, :-1, 1:] & flat[:, 1:, :-1] & same
    here &= (labels[:, :-1, 1:] == labels[:, 1:, :-1]) & (labels[:, 1:, 1:] == labels[:, :-1, 1:])
    along = (n[:, 0] * (u - cx) + n[:, 1] * (v - cy)) / focal + n[:, 2]
    slope_u = (n[:, 0] / focal * inverse / along)[:, :-1, :-1]
    slope_v = (n[:, 1] / focal * inverse / along)[:, :-1, :-1]
    found_u = (inverse[:, :, 1:] - inverse[:, :, :-1])[:, :-1]
    found_v = (inverse[:, 1:] - inverse[:, :-1])[..., :-1]
    assert here.float().mean() > 0.4
    assert (found_u - slope_u)[here].abs().quantile(0.99) < 2e-5
    assert (found_v - slope_v)[here].abs().quantile(0.99) < 2e-5


def test_rotations_are_exact_at_rest_and_orthogonal() -> None:
    axis = np.array([0.6, 0.0, 0.8])
    assert (turn(axis, np.array(0.0)) == 0).all()
    matrix = rotation(axis, np.array(np.tan(0.35)))
    np.testing.assert_allclose(product(matrix, transpose(matrix)), np.eye(3), atol=1e-15)
    assert np.trace(matrix) == pytest.approx(1 + 2 * np.cos(0.7))
