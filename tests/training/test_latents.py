"""The latent cache: what it gives is what coding the samples would give, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from stepsight.coding import Layout, code
from stepsight.config import from_dict
from stepsight.data.augment import flip
from stepsight.data.cache import store as store_module
from stepsight.data.collate import collate
from stepsight.data.resize import resize_sample
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.models.codec import Codec, Pixels
from stepsight.models.config import CodecSettings
from stepsight.seeding import generator
from stepsight.tasks.base import Task
from stepsight.tasks.table import build_tasks
from stepsight.training import latents
from stepsight.training.latents import Latents
from stepsight.types import ModelInputs

HOW = CodecSettings()
COUNT = 12
GRIDS = ((16, 16), (20, 24))  # native sizes: the working one, and another
INDICES = [3, 0, 11, 2, 3, 5, 10, 8]  # sample 5 has no valid pixel
MIRRORED = [True, False, True, False, False, False, True, True]


class Halves:
    """A codec of 3 latents a cell of 2 x 2 pixels: their mean colour. It counts what it encodes."""

    name, downsample = "halves", 2

    def __init__(self) -> None:
        self.pictures = 0

    def channels(self, channels: int) -> int:
        return -(-channels // 3) * 3

    def encode(self, x: Tensor) -> Tensor:
        self.pictures += len(x)
        x = repeat(x, "b 1 h w -> b 3 h w") if x.shape[1] == 1 else x
        return F.avg_pool2d(F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % 3)), 2)

    def decode(self, z: Tensor, channels: int) -> Tensor:
        return F.interpolate(z, scale_factor=2)[:, :channels]

    def mask(self, valid: Tensor) -> Tensor:
        return -F.max_pool2d(-valid.float(), 2) > 0

    def to(self, device: torch.device | str) -> Halves:
        return self

    def save(self, folder: Path) -> None:
        """Nothing to keep."""


TABLES: dict[str, dict[str, dict[str, Any]]] = {
    "depth": {"depth": {}},
    "prompt": {"depth": {"prompt": "valid"}},
    "flow": {"flow": {}},
    "separate": {"flow": {"components": "separate", "cost_volume": False}},
    "amodal": {"amodal": {}},
    "rgb": {"amodal": {"target": "rgb"}},
    "image": {"image": {}},
    "many": {"depth": {}, "flow": {}, "amodal": {}, "semantic": {}, "image": {}},
}


def tasks_of(table: str | Mapping[str, Any]) -> dict[str, Task]:
    settings = TABLES[table] if isinstance(table, str) else table
    return build_tasks(from_dict({"tasks": settings}).tasks)


@pytest.fixture
def source(lab):
    return lab.Source(count=COUNT, seed="latents", grids=GRIDS)


@pytest.fixture
def make(source, tmp_path) -> Callable[..., Latents]:
    """A filled cache of the tasks in a table."""

    def make(tasks: Mapping[str, Task], codec: Codec, dtype: str = "float32") -> Latents:
        cache = Latents(tmp_path / "deep" / "cache", source, "v1", tasks, codec, HOW, dtype)
        cache.fill()
        return cache

    return make


def online(
    source, task: Task, layout: Layout, codec: Codec, indices: Sequence[int], mirrored: list[bool]
) -> ModelInputs:
    """The same samples without a cache."""
    samples = [resize_sample(source[i], source.size) for i in indices]
    batch = collate([flip(one) if turned else one for one, turned in zip(samples, mirrored)])
    return code(batch, task, layout, codec, target=True)


def assert_close(found: ModelInputs, expected: ModelInputs, slack: float = 0.0) -> None:
    for field in fields(ModelInputs):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        assert (one is None) == (other is None), field.name
        if isinstance(one, Tensor):
            torch.testing.assert_close(one, other, atol=slack, rtol=slack, msg=field.name)
        else:
            assert one == other, field.name


def loss_of(coded: ModelInputs) -> float:
    """The denoising loss of a network that looks at all it is given."""
    assert coded.x is not None and coded.valid is not None
    draw = generator("latents loss")
    noise = torch.randn(coded.x.shape, generator=draw)
    mixing = torch.randn(coded.x.shape[1], coded.cond.shape[1], generator=draw) / 4

    def net(x: Tensor, cond: Tensor, time: Tensor, label: Tensor, features: Tensor | None = None):
        seen = torch.einsum("ck,bkhw->bchw", mixing, cond) + 0.1 * label[:, None, None, None]
        return x.tanh() + (seen if features is None else seen + features.mean())

    t = torch.linspace(0.1, 0.9, len(noise))
    total, count = Diffusion(from_dict({}).diffusion).loss(net, coded, t, noise)
    return float(total.sum() / count.sum())


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("codec", [Pixels(), Halves()], ids=["pixels", "halves"])
def test_the_cache_gives_what_coding_gives(make, source, table, codec):
    tasks = tasks_of(table)
    cache, layout = make(tasks, codec), Layout.of(tasks, codec)
    for name, task in tasks.items():
        expected = online(source, task, layout, codec, INDICES, MIRRORED)
        assert_close(cache.coded(name, layout, INDICES, MIRRORED), expected)


@pytest.mark.parametrize("table", ["flow", "separate", "many"])
def test_with_a_vae_as_well(make, source, vae_of, table):
    """Convolutions depend on the size of their batch, in the last bits."""
    tasks, vae = tasks_of(table), vae_of(0)
    cache, layout = make(tasks, vae), Layout.of(tasks, vae)
    for name, task in tasks.items():
        expected = online(source, task, layout, vae, INDICES, MIRRORED)
        assert expected.cond.shape[-2:] == (8, 8) and layout.target % 4 == 0
        assert_close(cache.coded(name, layout, INDICES, MIRRORED), expected, slack=1e-5)


@pytest.mark.parametrize("table", TABLES)
def test_in_half_precision_the_loss_is_the_same_to_a_thousandth(make, source, table):
    tasks, codec = tasks_of(table), Halves()
    cache, layout = make(tasks, codec, "float16"), Layout.of(tasks, codec)
    for name, task in tasks.items():
        expected = online(source, task, layout, codec, INDICES, MIRRORED)
        found = cache.coded(name, layout, INDICES, MIRRORED)
        assert expected.valid is not None and 0 < expected.valid.mean() <= 1
        assert found.x is not None and found.x.dtype == found.cond.dtype == torch.float32
        assert loss_of(found) == pytest.approx(loss_of(expected), rel=1e-3)
        assert torch.equal(found.label, expected.label)  # and what is not a float is exact
        assert found.valid is not None and torch.equal(found.valid, expected.valid)


def test_half_the_bytes_in_half_precision(make, source, tmp_path):
    sizes = []
    for dtype in ("float32", "float16"):
        cache = Latents(tmp_path / dtype, source, "v1", tasks_of("depth"), Pixels(), HOW, dtype)
        sizes.append(cache.store.dtype.itemsize)
    assert 1.7 < sizes[0] / sizes[1] < 2


def test_the_first_condition_image_is_kept_once(make):
    names = make(tasks_of("many"), Halves()).store.dtype.names
    assert names.count("image") == 1
    assert {name for name in names if name.endswith("images")} == {
        f"{task}.images" for task in TABLES["many"]
    }


@pytest.mark.parametrize(
    ("table", "pictures"),
    [
        ({"depth": {}}, 2),  # the image and its depth
        ({"depth": {"prompt": "valid"}}, 3),
        ({"flow": {"components": "separate"}}, 2 + 2),  # two frames, two components
        ({"depth": {}, "flow": {}, "amodal": {}}, 1 + 1 + 2 + 2),
        ({"depth": {}, "image": {}}, 2),  # what is to be generated is the picture itself
        ({"amodal": {}, "semantic": {"classes": 7}}, 1 + 2 + 1),
    ],
)
def test_each_picture_is_encoded_once_a_side(make, table, pictures):
    codec = Halves()
    make(tasks_of(table), codec)
    assert codec.pictures == 2 * (COUNT + 1) * pictures  # and one row for the layout


@pytest.mark.parametrize("world", [1, 3])
def test_rows_are_made_in_chunks_and_shares_alike(source, tmp_path, monkeypatch, world):
    monkeypatch.setattr(store_module, "BLOCK", 4)
    monkeypatch.setattr(store_module, "SHARD", 8)
    monkeypatch.setattr(latents, "CHUNK", 3)
    tasks, codec = tasks_of("many"), Halves()
    caches = [
        Latents(tmp_path / "cache", source, "v1", tasks, codec, HOW, "float32")
        for _ in range(world)
    ]
    made: list[int] = []
    for rank, cache in enumerate(caches):
        cache.fill(rank, world, report=made.append)
    assert sum(made) == COUNT and caches[0].store.missing() == 0
    layout, every = Layout.of(tasks, codec), list(range(COUNT))
    for name, task in tasks.items():
        expected = online(source, task, layout, codec, every, [False] * COUNT)
        assert_close(caches[-1].coded(name, layout, every, [False] * COUNT), expected)


def test_a_killed_filling_leaves_blank_rows_and_goes_on_from_there(source, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "BLOCK", 4)
    tasks, codec = tasks_of("depth"), Halves()

    def opened() -> Latents:
        return Latents(tmp_path / "cache", source, "v1", tasks, codec, HOW, "float32")

    def killed(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened().fill(report=killed)
    cache, layout = opened(), Layout.of(tasks, codec)
    assert cache.store.missing() == COUNT - 4
    with pytest.raises(UserError, match="row 4 is blank; fill the latent cache first"):
        cache.coded("depth", layout, [3, 4], [False, False])
    codec.pictures = 0
    cache.fill()
    assert codec.pictures == 2 * (COUNT - 4) * 2  # none of the finished rows again
    expected = online(source, tasks["depth"], layout, codec, [2, 9], [True, False])
    assert_close(cache.coded("depth", layout, [2, 9], [True, False]), expected)


def test_rows_beyond_those_asked_for_are_left_for_later(source, tmp_path):
    cache = Latents(tmp_path / "cache", source, "v1", tasks_of("depth"), Halves(), HOW, "float16")
    cache.fill(stop=5)
    assert cache.store.missing() == COUNT - 5


# ---------------------------------------------------------------------------- whose it is


def other_codec() -> Codec:
    codec = Halves()
    codec.name = "thirds"
    return codec


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"codec": other_codec()}, "is of codec 'halves', not 'thirds'"),
        ({"tasks": {"depth": {"space": "inverse"}}}, "is of tasks .*'log'.*, not .*'inverse'"),
        ({"tasks": {"depth": {}, "flow": {}}}, "is of tasks .*, not .*'flow'"),
        ({"how": CodecSettings("", "bf16")}, "is of computed_in .*'float32'.*'bf16'"),
        ({"how": CodecSettings(tiling=True)}, "is of computed_in .*'whole'.*, not .*'tiled'"),
        ({"dtype": "float16"}, "is of dtype 'float32', not 'float16'"),
        ({"size": (16, 32)}, r"is of size \[16, 16\], not \[16, 32\]"),
        ({"samples": "v2"}, "is of samples 'v1', not 'v2'"),
        ({"count": COUNT - 1}, "this latent cache has 12 rows, not 11"),
    ],
)
def test_what_was_made_otherwise_is_refused_by_name(source, tmp_path, changes, said):
    def opened(
        tasks: Mapping[str, Any] | None = None,
        codec: Codec | None = None,
        dtype: str = "float32",
        samples: str = "v1",
        how: CodecSettings = HOW,
        **other: Any,
    ) -> Latents:
        chosen, where = tasks_of(tasks or {"depth": {}}), tmp_path / "cache"
        own = replace(source, **other)
        return Latents(where, own, samples, chosen, codec or Halves(), how, dtype)

    opened().fill()
    with pytest.raises(UserError, match=said):
        opened(**changes)
    assert opened().store.missing() == 0


def test_how_often_a_task_is_drawn_does_not_matter(source, tmp_path):
    for weight in (1.0, 3.0):
        tasks = tasks_of({"depth": {"weight": weight}})
        Latents(tmp_path / "cache", source, "v1", tasks, Halves(), HOW, "float32").fill()
