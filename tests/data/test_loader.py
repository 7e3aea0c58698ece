"""The same samples in the same order, whoever reads them: a mixture of three sharded sources."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import count, islice
from pathlib import Path

import pytest
import torch

from stepsight import signals
from stepsight.data import loader
from stepsight.data.buckets import cut
from stepsight.data.collate import collate
from stepsight.data.loader import Loader, Reader, Request
from stepsight.data.mixture import Mixture, Stream
from stepsight.data.sharded.writing import write_shards
from stepsight.data.table import Source, open_source, settings_for
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Batch

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # 4 on few cores

GRIDS = ((12, 16), (16, 12), (16, 16))
COUNTS = {"hypersim": 23, "sintel": 9, "folder": 17}
TASKS = {"hypersim": "depth", "sintel": "flow", "folder": "depth"}
BUCKETS = ((8, 12), (12, 8))
BATCH = 4


@pytest.fixture(scope="module")
def sources(laboratory, tmp_path_factory) -> dict[str, Source]:
    """Three sharded sources, with seven samples in a tar."""
    root = tmp_path_factory.mktemp("shards")
    found = {}
    for name, length in COUNTS.items():
        source = type(name, (laboratory.Source,), {"name": name})(length, seed=name, grids=GRIDS)
        write_shards(source, root / name / "train", split="train", per_shard=7)
        settings = settings_for(name, root=str(root / name), size=(8, 8))
        found[name] = open_source(settings, "train", frozenset({"depth", "flow"}))
    return found


@pytest.fixture(scope="module")
def mixture(sources) -> Mixture:
    """Of three tenths depth in two buckets, and the rest at the working size."""
    streams = [
        Stream(TASKS[name], name, weight, len(sources[name]), groups=sources[name].groups)
        for name, weight in (("hypersim", 0.3), ("sintel", 0.5), ("folder", 0.2))
    ]
    first = cut(streams[0], sources["hypersim"].sizes, BUCKETS, 0.02)
    return Mixture([*first, *streams[1:]], BATCH, seed=11)


def reader_of(sources: dict[str, Source]) -> Reader:
    options = {"stream": True, "crop_scale": 0.6, "jitter": 0.3}
    settings = {name: settings_for(name, **options) for name in sources}
    return Reader(sources, settings, seed=11, flip=True)  # type: ignore[arg-type]


class Process:
    """What one of `world` processes reads, with so many workers."""

    def __init__(self, sources, mixture, workers: int, world: int = 1, rank: int = 0, **more):
        self.mixture, size = mixture, BATCH // world
        self.rows = range(rank * size, (rank + 1) * size)
        self.loader = Loader(reader_of(sources), self.requests, workers, **more)

    def requests(self, step: int) -> Iterator[Request]:
        return (Request.of(self.mixture.draw(one), one, self.rows) for one in count(step))

    def read(self, steps: range) -> list[Batch]:
        found = [self.loader.take(one) for one in islice(self.requests(steps.start), len(steps))]
        self.loader.close()
        return found


def digest(batch: Batch) -> str:
    """Of every field and its bits."""
    found = hashlib.sha256()
    for field in fields(batch):
        value = getattr(batch, field.name)
        found.update(repr(field.name).encode())
        found.update(value.numpy().tobytes() if torch.is_tensor(value) else repr(value).encode())
    return found.hexdigest()


@pytest.fixture(scope="module")
def alone(sources, mixture) -> list[Batch]:
    """Twenty batches, read in the loop of one process."""
    return Process(sources, mixture, 0).read(range(20))


def test_the_mixture_has_all_sources_and_shapes(alone, mixture):
    assert {batch.sources[0] for batch in alone} == set(COUNTS)
    assert {tuple(batch.image.shape[-2:]) for batch in alone} == {(8, 8), *BUCKETS}
    assert all(len(set(batch.sources)) == 1 for batch in alone)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_reads_the_same_batches(sources, mixture, alone, workers):
    found = Process(sources, mixture, workers).read(range(20))
    assert [batch.keys for batch in found] == [batch.keys for batch in alone]
    assert [digest(batch) for batch in found] == [digest(batch) for batch in alone]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_two_processes_read_the_halves_of_what_one_reads(sources, mixture, alone, workers):
    halves = [Process(sources, mixture, workers, 2, rank).read(range(20)) for rank in range(2)]
    for whole, *parts in zip(alone, *halves):
        assert whole.keys == [key for part in parts for key in part.keys]
        assert torch.equal(whole.image, torch.cat([part.image for part in parts]))
        assert torch.equal(whole.depth, torch.cat([part.depth for part in parts]))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 7, 13])
def test_a_stream_that_stopped_anywhere_continues_with_the_next_sample(
    sources, mixture, alone, workers, stop
):
    before = Process(sources, mixture, workers).read(range(stop))
    after = Process(sources, mixture, workers).read(range(stop, 20))
    assert [digest(one) for one in before + after] == [digest(one) for one in alone]


def test_a_loader_begins_anew_where_it_is_asked_to(sources, mixture, alone):
    process = Process(sources, mixture, 2)
    for step in (3, 4, 9, 2, 3):
        request = next(process.requests(step))
        assert digest(process.loader.take(request)) == digest(alone[step])
    process.loader.close()


def test_readers_may_begin_before_they_are_asked(sources, mixture, alone, monkeypatch):
    process = Process(sources, mixture, 2)
    process.loader.begin(6)
    monkeypatch.setattr(process.loader, "_seek", None)  # and do not begin again
    found = [process.loader.take(one) for one in islice(process.requests(6), 5)]
    assert [digest(one) for one in found] == [digest(one) for one in alone[6:11]]


def test_no_sample_of_an_epoch_is_lost_or_repeated(sources, mixture):
    """Nothing is decoded: which keys the tars would give follows from the requests."""
    process = Process(sources, mixture, 0)
    seen: dict[tuple, list[int]] = {}
    for request in islice(process.requests(0), 120):
        seen.setdefault((request.source, request.size), []).extend(request.indices)
    for (name, size), indices in seen.items():
        stream = next(s for s in mixture.streams if (s.source, s.size) == (name, size))
        members = sorted(i for group in stream.groups for i in group)
        assert len(members) == stream.length
        for start in range(0, len(indices) - stream.length, stream.length):
            assert sorted(indices[start : start + stream.length]) == members
    buckets = [s for s in mixture.streams if s.source == "hypersim"]
    assert sum(stream.length for stream in buckets) == COUNTS["hypersim"]


def test_augmentation_changes_from_image_to_image_and_not_with_who_asks(sources, mixture):
    reader = reader_of(sources)
    request = Request(0, "folder", None, (3, 3), (False, False), (0, 1))
    first, second = reader[request].batch.image
    assert not torch.equal(first, second)
    again = reader[replace(request, numbers=(1, 0))].batch.image
    assert torch.equal(again[0], second) and torch.equal(again[1], first)


def test_the_global_generator_is_left_alone(sources, mixture):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Process(sources, mixture, 2).read(range(3))
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------------- what goes wrong


class Faulty:
    """A source of which sample 5 does what it is told."""

    name, classes, categories, size = "folder", (), (), (8, 8)
    quantities = frozenset({"depth"})

    def __init__(self, source: Source, deed) -> None:
        self.source, self.deed = source, deed

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int):
        return self.deed() if index == 5 else self.source[index]

    def samples(self, indices):
        return [self[index] for index in indices]


def damaged():
    raise DataFormatError("/data/05.png: truncated.")


def unreadable():
    raise OSError(5, "Input/output error")


def bug():
    return {}["depth"]


def leave():
    os._exit(0)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def hang():
    time.sleep(600)


def faulty(sources, deed, workers: int, **more) -> Process:
    return Process({"folder": Faulty(sources["folder"], deed)}, mixture_of_one(), workers, **more)


def mixture_of_one() -> Mixture:
    return Mixture([Stream("depth", "folder", 1.0, 8, independent=True)], BATCH, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("deed", "kind", "message"),
    [
        (damaged, DataFormatError, "folder, sample 5: /data/05.png: truncated."),
        (unreadable, UserError, r"folder, sample 5: cannot be read \(\[Errno 5\]"),
    ],
)
def test_a_sample_that_cannot_be_read_is_named(sources, deed, kind, message, workers):
    process = faulty(sources, deed, workers)
    first, second = islice(process.requests(0), 2)
    assert len(process.loader.take(first)) == BATCH
    with pytest.raises(kind, match=message) as caught:
        process.loader.take(second)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_keeps_its_traceback(sources, workers):
    with pytest.raises(KeyError, match="depth"):
        faulty(sources, bug, workers).read(range(2))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torn queues
@pytest.mark.parametrize(
    ("deed", "patience"), [(leave, 60), (die, 60), pytest.param(hang, 1, marks=pytest.mark.slow)]
)
def test_a_reader_that_dies_or_hangs_is_noticed(sources, monkeypatch, deed, patience):
    monkeypatch.setattr(loader, "LOOK", 0.5)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"died or hung while batch [01] is awaited \(folder, sam"):
        faulty(sources, deed, 1, patience=patience).read(range(2))
    assert time.monotonic() - began < 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_reader_that_is_stopped_is_named_and_does_not_stay(sources, monkeypatch, capsys):
    for name, value in {"LOOK": 0.1, "SAID": 0.2, "STOPPED": 0.5}.items():
        monkeypatch.setattr(loader, name, value)
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    named = (
        r"batch [01] is awaited \(folder, samples (\d+, ){3}\d+\)( for 0 s,)? from reader process "
    )
    with pytest.raises(UserError, match=named + r"(\d+)") as caught:
        faulty(sources, stop, 1).read(range(2))
    said = re.search(named + r"(\d+)", capsys.readouterr().err)
    error = re.search(named + r"(\d+)", str(caught.value))
    assert error and (said is None or said[3] == error[3])
    stat, until = Path(f"/proc/{error[3]}/stat"), time.monotonic() + 10
    while stat.exists() and ") Z" not in stat.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert not stat.exists() or ") Z" in stat.read_text()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torn queues
def test_readers_that_a_signal_ended_begin_anew_for_the_last_step(sources, monkeypatch):
    """A queue sends TERM to every process of a job."""
    monkeypatch.setattr(loader, "LOOK", 0.1)
    process = Process({"folder": sources["folder"]}, mixture_of_one(), 1)
    requests = process.requests(0)
    with signals.caught():
        process.loader.take(next(requests))
        (reader,) = process.loader._readers()
        os.kill(reader.pid, signal.SIGTERM)
        reader.join(10)
        assert reader.exitcode == 0
        os.kill(os.getpid(), signal.SIGTERM)
        found = [process.loader.take(next(requests)) for _ in range(4)]
    process.loader.close()
    expected = Process({"folder": sources["folder"]}, mixture_of_one(), 0).read(range(5))
    assert [digest(batch) for batch in found] == [digest(batch) for batch in expected[1:]]


@pytest.mark.parametrize("torn", [EOFError(), ConnectionResetError(104, "reset"), RuntimeError()])
def test_a_connection_that_tears_as_a_reader_dies_is_the_same_news(sources, torn):
    def answers():
        raise torn
        yield

    process = faulty(sources, leave, 1)
    request = next(process.requests(0))
    process.loader._answers, process.loader._expected = answers(), iter([request])
    with pytest.raises(UserError, match="died or hung while batch 0 is awaited"):
        process.loader.take(request)
    assert process.loader._answers is None


def test_without_augmentation_it_serves_what_the_source_holds(sources):
    settings = {"folder": settings_for("folder", stream=True)}
    reader = Reader({"folder": sources["folder"]}, settings, seed=0, flip=False)  # type: ignore[arg-type]
    native = sources["folder"].samples(range(3, 6, 3))
    found = reader.read(Request(0, "folder", native[0].image.shape[-2:], (3,), (True,), (0,)))
    assert digest(found) == digest(collate(native))


def test_a_reader_that_dies_while_the_loop_computes_is_said_in_one_line():
    with pytest.raises(UserError, match=r"pid 7\) is killed.*training.workers"):
        with loader.readers_watched():
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nmore")
    with pytest.raises(RuntimeError, match="^shapes differ$"), loader.readers_watched():
        raise RuntimeError("shapes differ")
