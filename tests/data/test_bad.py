"""Items that cannot be read: noted once, counted, refused beyond a share, whoever meets them."""

from __future__ import annotations

import json
import multiprocessing

import pytest

from stepsight.data.bad import QUARANTINE, BadItems, append_note, read_notes
from stepsight.errors import DataFormatError, UserError

DAMAGED = DataFormatError("toys, sample 3: /data/3.png: damaged.")


@pytest.mark.parametrize("kind", [DataFormatError, UserError])
def test_the_first_stops_and_says_how_to_go_on(kind):
    bad = BadItems()
    with pytest.raises(kind, match=r"3.png: damaged. To go on .*: --on-bad skip") as caught:
        bad.met("toys", 3, kind(str(DAMAGED)), of=1000)
    assert type(caught.value) is kind and not bad.count


@pytest.mark.parametrize("in_file", [True, False])
def test_skipping_notes_each_once_and_says_so_once(tmp_path, in_file):
    heard: list[str] = []
    path = tmp_path / "run" / QUARANTINE if in_file else None
    bad = BadItems("skip", 0.5, path, say=heard.append)
    for source, key in (("a", 1), ("a", 1), ("b", 1), ("b", "x"), ("a", 1)):
        bad.met(source, key, DAMAGED, of=10)
    assert bad.count == 3 and bad.by_source == {"a": 1, "b": 2}
    assert len(heard) == 1 and "3.png: damaged" in heard[0]
    assert [(note["source"], note["key"]) for note in bad.notes] == [("a", 1), ("b", 1), ("b", "x")]
    if path:
        assert read_notes(path) == bad.notes and "quarantine.jsonl" in heard[0]
        again = BadItems("skip", 0.5, path, say=heard.append)  # a run that continues
        again.met("a", 1, DAMAGED, of=10)
        assert again.count == 3 and len(heard) == 1


@pytest.mark.parametrize(
    ("cap", "of", "most"), [(0.01, 1000, 10), (0.01, 20, 1), (0.0, 20, 0), (1.0, 3, 3)]
)
def test_more_than_the_cap_stop(tmp_path, cap, of, most):
    bad = BadItems("skip", cap, tmp_path / QUARANTINE, flags=("--x", "--y"), say=lambda _: None)
    for key in range(most):
        bad.met("toys", key, DAMAGED, of=of)
    if most < of:
        reason = f"toys: {most + 1} of {of} items .* --y {cap:g} lets {most} be skipped.*quarantine"
        with pytest.raises(UserError, match=reason):
            bad.met("toys", most, DAMAGED, of=of)


@pytest.mark.parametrize("cap", [-0.1, 1.5, float("nan")])
def test_a_cap_that_is_no_share_is_refused(cap):
    with pytest.raises(UserError, match="--bad-cap .*: a share"):
        BadItems("skip", cap)


def write(path, first: int) -> None:
    said = path.with_name(f"said-{first}")
    bad = BadItems("skip", 1.0, path, say=lambda text: said.touch() or None)
    for key in range(first, first + 60):  # half of them are met by two processes
        bad.met("toys", key, DataFormatError("long " * 200), of=1000)


def test_processes_that_append_at_once_tear_and_repeat_nothing(tmp_path):
    path = tmp_path / QUARANTINE
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write, args=(path, 30 * n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(line["key"] for line in lines) == list(range(120))
    assert len([*tmp_path.glob("said-*")]) == 1


def test_a_line_that_a_killed_process_left_unfinished_harms_no_other(tmp_path):
    path = tmp_path / QUARANTINE
    note = {"source": "toys", "key": 1, "reason": "damaged"}
    path.write_bytes(json.dumps(note).encode() + b'\n{"source": "to\0\xff')
    assert read_notes(path) == [note]
    append_note(path, {**note, "key": 2})
    assert [one["key"] for one in read_notes(path)] == [1, 2]


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        BadItems("skip", 1.0, tmp_path / "file" / QUARANTINE).met("toys", 1, DAMAGED, of=2)
