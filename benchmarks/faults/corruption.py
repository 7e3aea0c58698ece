"""Damage to every file of a run, and checkpoints that a stranger changed and sealed anew.

The first is detected and stepped over, to the newest whole checkpoint; side files stop nothing. Of
the second nothing worse comes than the error that a user is meant to read.
"""

from __future__ import annotations

import json
import random
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks.faults import Tally
from benchmarks.faults.runs import FILES, difference, ended, fresh, outcome, settings, trained, warm
from stepsight import checkpoint
from stepsight.checkpoint import format
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.training.folder import RunWriter
from stepsight.training.progress import Progress, check_settings

NEWEST, BEFORE = "step-000004", "step-000002"  # of the run that is damaged
SIDE = ("checkpoints/last.txt", "checkpoints/best.txt", "metrics.jsonl")
Weights = dict[str, dict[str, dict[str, Tensor]]]  # by step folder, file and name
Damage = Callable[[bytes, random.Random], bytes | None]


def _flip(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def _blank(data: bytes, draw: random.Random) -> bytes:
    first = draw.randrange(len(data))
    span = min(len(data) - first, draw.randint(1, 512))
    # A stretch that was empty before is not damaged by being emptied.
    return (
        data[:first]
        + (b"\xff" if not any(data[first : first + span]) else b"\0") * span
        + data[first + span :]
    )


def _middle(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + draw.randbytes(draw.randint(1, 9)) + data[place:]


DAMAGES: dict[str, Damage] = {
    "one bit": _flip,
    "zeros": _blank,
    "bytes in between": _middle,
    "cut to nothing": lambda data, _: b"",
    "cut to 10 %": lambda data, _: data[: len(data) // 10],
    "cut to 50 %": lambda data, _: data[: len(data) // 2],
    "cut by one": lambda data, _: data[:-1],
    "longer": lambda data, draw: data + draw.randbytes(draw.randint(1, 64)),
    "noise": lambda data, draw: draw.randbytes(len(data)),
    "gone": lambda data, _: None,
}


def run(quick: bool, folder: Path) -> list[Tally]:
    """At least 500 damages and 500 changes in the full run."""
    draw = random.Random(0)
    warm(folder / "whole")
    wanted, torn = outcome(folder / "whole"), fresh(folder / "whole", folder / "torn")
    shutil.rmtree(torn / "checkpoints" / "step-000006")
    names = [f"checkpoints/{NEWEST}/{one}" for one in _files(torn / "checkpoints" / NEWEST)]
    cases = [(name, kind) for name in [*names, *SIDE] for kind in DAMAGES]
    cases = draw.sample(cases, 24) if quick else cases * 5
    whole = {step: _weights(torn / "checkpoints" / step) for step in (BEFORE, NEWEST)}
    place = folder / "damaged"
    faults = [_damaged(torn, place, name, kind, draw, whole) for name, kind in cases]
    tallies = [
        _tally("damaged files detected or harmless", faults, "the newest whole checkpoint is used")
    ]
    some = draw.sample(cases, 2 if quick else 30)
    faults = [_continued(torn, folder / "continued", *case, draw, wanted) for case in some]
    bar = "weights and optimizer state at the end equal those of a run left alone"
    tallies.append(_tally("damaged runs trained to the end", faults, bar))
    count = 25 if quick else 500
    faults = [_changed(torn, folder / "changed", number) for number in range(count)]
    bar = "opened, or the error that a user is meant to read"
    tallies.append(_tally("checkpoints changed and sealed anew", faults, bar))
    return tallies


def _tally(figure: str, faults: list[str], bar: str) -> Tally:
    return Tally(figure, len(faults), faults.count(""), bar, next(filter(None, faults), ""))


def _files(folder: Path) -> Iterator[Path]:
    return (one.relative_to(folder) for one in sorted(folder.rglob("*")) if one.is_file())


def _weights(path: Path) -> dict[str, dict[str, Tensor]]:
    saved = checkpoint.read(path)
    return {name: saved.tensors(name) for name in FILES}


def _damage(folder: Path, name: str, kind: str, draw: random.Random) -> bool:
    """Whether the file is another now."""
    file = folder / name
    before = file.read_bytes()
    after = DAMAGES[kind](before, draw)
    file.unlink() if after is None else file.write_bytes(after)
    return after != before


def _damaged(
    torn: Path, folder: Path, name: str, kind: str, draw: random.Random, whole: Weights
) -> str:
    """What went wrong when a run with a damaged file was taken up; "" if nothing did."""
    fresh(torn, folder)
    changed = _damage(folder, name, kind, draw)
    should, told = BEFORE if changed and NEWEST in name else NEWEST, []
    try:
        saved = checkpoint.read_newest(folder, told.append)  # what --resume auto takes
        assert saved is not None
        RunWriter(folder).rewind(saved.meta["step"], told.append)
        assert saved.path.name == should, f"{saved.path.name} in place of {should}"
        for file in FILES:
            for key, value in saved.tensors(file).items():
                assert torch.equal(value, whole[should][file][key]), key
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert all(row["step"] <= saved.meta["step"] for row in rows), "later lines"
        assert should == NEWEST or any(NEWEST in line for line in told), f"nothing said: {told}"
    except FileNotFoundError as error:
        return "" if name == "metrics.jsonl" else f"{name}, {kind}: {error!r}"
    except Exception as error:
        return f"{name}, {kind}: {error!r}"[:400]
    return ""


def _continued(
    torn: Path, folder: Path, name: str, kind: str, draw: random.Random, wanted: dict[str, Any]
) -> str:
    """The same, trained to its end."""
    fresh(torn, folder)
    folder.with_suffix(".log").unlink(missing_ok=True)
    _damage(folder, name, kind, draw)
    statuses = ended(trained(folder, settings()))
    if any(statuses):
        return f"{name}, {kind}: {folder.with_suffix('.log').read_text()[-300:]}"
    found = outcome(folder)
    if name == "metrics.jsonl":
        found["curve"] = wanted["curve"]  # lines that were lost stay lost
    fault = difference(found, wanted)
    return f"{name}, {kind}: {fault}" if fault else ""


# ---------------------------------------------------------------------------- changed and sealed


def _changed(torn: Path, folder: Path, number: int) -> str:
    """What escaped when a checkpoint with a change and a manifest that fits was opened."""
    draw = random.Random(number)
    path = fresh(torn, folder) / "checkpoints" / NEWEST
    name = draw.choice([one for one in map(str, _files(path)) if one not in ("COMPLETE",)])
    file = path / name
    if file.suffix in (".json", ".yaml"):
        what = _change_table(file, draw)
    else:
        what = _change_tensors(file, draw)
    if name != format.MANIFEST:
        names = {str(one) for one in _files(path)} - {format.MANIFEST, format.COMPLETE}
        format.seal(path, {one: format.entry(path / one) for one in names})
    else:
        (path / format.COMPLETE).write_text(f"{format.digest(file)}  {format.MANIFEST}\n")
    try:
        _open_all(path)
    except UserError as error:
        if not str(error) or "\n" in str(error):
            return f"{name}, {what}: not one line: {error}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{name}, {what}: {error!r} in {last.filename}:{last.lineno}"[:400]
    return ""


def _open_all(path: Path) -> None:
    """As prediction opens it, and as a resume does."""
    pipeline = DensePipeline.from_pretrained(path)
    for task in pipeline.tasks:
        pipeline.setting(task)
        assert pipeline.working_size(task, (32, 32)) and pipeline.calibration is not None
    saved = checkpoint.resumable(path)
    check_settings(saved, saved.config)
    checkpoint.load_into(dict(pipeline.net.state_dict()), path / checkpoint.RAW)
    progress = Progress.of(saved.meta)
    progress.advance(8, 1.0)
    progress.improve(0.0)
    progress.healthy(1.0, keep=True)
    progress.note("opened")
    json.dumps(progress.stamp("train"))
    Progress.from_weights(saved.meta)


VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**70, 1e308, float("nan"), "", "x", "../x", "\0", [], {}, [[]], {"a": {}},
    [1, 2, 3], {"depth": []}, {"depth": ["a", "b"]}, {"depth": [16]}, {"x": 1}, "é" * 300,
)  # fmt: skip
TEXTS = ("", "[]", "1", "null", "{", "[" * 9000, "\0", "a: !!python/name:os.system", "&a [*a]")


def _change_table(file: Path, draw: random.Random) -> str:
    """Change one value somewhere in a table, or the text itself."""
    text = file.read_text()
    table = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    way = draw.randrange(8)
    if way == 0:
        odd = draw.choice(
            ["", "[]", "1", "null", "{", "[" * 9000, "\x00", "a: !!python/name:os.system"]
        )
        file.write_text(odd)
        return f"the text {odd[:30]!r}"
    if way == 1:
        file.write_bytes(_flip(text.encode(), draw))
        return "one bit"
    node, path = table, []
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw.choice(keys)
        path.append(key)
        inner = node[key]
        if not isinstance(inner, dict | list) or not inner or draw.random() < 0.3:
            break
        node = inner
    value = draw.choice(VALUES)
    if way == 2:
        del node[key]
        what = f"without {path}"
    else:
        node[key] = value
        what = f"{path} = {str(value)[:30]!r}"
    dump = json.dumps(table) if file.suffix == ".json" else yaml.safe_dump(table)
    file.write_text(dump)
    return what


def _change_tensors(file: Path, draw: random.Random) -> str:
    """Change the heading of a safetensors file, or any of its bytes."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    way = draw.randrange(6)
    if way < 2 or length < 3:
        kind = draw.choice([kind for kind in DAMAGES if kind != "gone"])
        file.write_bytes(DAMAGES[kind](data, draw) or b"")
        return kind
    heading = json.loads(data[8 : 8 + length])
    name = draw.choice(list(heading))
    if way == 2:
        del heading[name]
        what = f"without {name}"
    elif way == 3:
        heading[name + "x"] = heading.pop(name)
        what = f"{name} renamed"
    else:
        inner = heading[name]
        key = draw.choice(list(inner))
        inner[key] = draw.choice([*VALUES, "F16", "F64", "I64", "BOOL", [1], [0, 4], [2**40, 2]])
        what = f"{name}.{key} = {str(inner[key])[:30]!r}"
    text = json.dumps(heading).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return what
