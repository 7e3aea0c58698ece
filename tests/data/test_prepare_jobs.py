"""The resumable engine of `stepsight data prepare`, on jobs that copy text."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from stepsight.data.prepare.jobs import STAGING, Job
from stepsight.data.prepare.manifest import Manifest, fingerprint
from stepsight.data.prepare.preparation import JOURNAL, Listing, Preparation
from stepsight.errors import DataFormatError, UserError


def shout(job: Job, staged: list[Path]) -> str | None:
    """Copy a text in capitals; refuse what has a question mark, leave out what is empty."""
    text = job.inputs[0].read_text()
    if "?" in text:
        raise DataFormatError(f"{job.inputs[0]}: has a question mark.")
    if not text:
        return "is empty"
    staged[0].write_text(text.upper())
    return None


def must_not_run(job: Job, staged: list[Path]) -> str | None:
    raise AssertionError(f"{job.name} was done again")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.txt").write_text(f"text {i}")
    return folder


def prepare(root, out, *, work=shout, workers=1, strict=True, settings=None, said=None) -> Manifest:
    names = sorted(path.name for path in root.iterdir())
    jobs = [Job(name, (root / name,), (f"a/{name}",), name) for name in names]
    preparation = Preparation("letters", root, out, settings or {"case": "upper"})
    report = (lambda line: None) if said is None else said.append
    listings = [Listing("all", "list.txt", jobs)]
    return preparation.run(listings, work, report=report, workers=workers, strict=strict)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_prepared_folder_holds_nothing_else(root, tmp_path):
    (root / "3.txt").write_text("")
    (root / "5.txt").write_text("why?")
    prepare(root, tmp_path / "out", strict=False)
    names = {"list.txt", "manifest.json", *(f"a/{i}.txt" for i in (0, 1, 2, 4))}
    assert set(tree(tmp_path / "out")) == names  # nothing staged, no journal


def test_the_manifest_tells_files_counts_and_rules(root, tmp_path):
    (root / "3.txt").write_text("")
    manifest = prepare(root, tmp_path / "out")
    assert manifest.source == "source" and manifest.counts == {"all": 5}
    assert manifest.left_out == {"3.txt": "is empty"} and not manifest.damaged
    assert manifest.files["a/0.txt"] == fingerprint(tmp_path / "out/a/0.txt")
    assert manifest.files["a/0.txt"]["bytes"] == 6
    again = Manifest.read(tmp_path / "out")
    assert again == manifest and again.hash == manifest.hash
    assert str(tmp_path) not in (tmp_path / "out/manifest.json").read_text()


def test_a_changed_manifest_is_refused(root, tmp_path):
    prepare(root, tmp_path / "out")
    path = tmp_path / "out/manifest.json"
    path.write_text(path.read_text().replace('"all": 6', '"all": 7'))
    with pytest.raises(DataFormatError, match="manifest.json.*changed"):
        Manifest.read(tmp_path / "out")
    path.write_text("[1]")
    with pytest.raises(DataFormatError, match="manifest.json"):
        prepare(root, tmp_path / "out")


def test_what_is_done_and_whole_is_not_done_again(root, tmp_path):
    (root / "3.txt").write_text("")
    first = prepare(root, tmp_path / "out")
    assert prepare(root, tmp_path / "out", work=must_not_run) == first


@pytest.mark.parametrize("harm", ["cut", "changed", "removed"])
def test_what_is_not_whole_is_done_again(root, tmp_path, harm):
    first = prepare(root, tmp_path / "out")
    before = tree(tmp_path / "out")
    path = tmp_path / "out/a/2.txt"
    path.unlink()
    if harm != "removed":
        path.write_text("TEX" if harm == "cut" else "TEXT 9")
    assert prepare(root, tmp_path / "out") == first
    assert tree(tmp_path / "out") == before


def test_strict_stops_at_the_first_damaged_file_by_name(root, tmp_path):
    (root / "2.txt").write_text("why?")
    (root / "4.txt").write_text("what?")
    with pytest.raises(DataFormatError, match=r"2\.txt: has a question mark"):
        prepare(root, tmp_path / "out")
    (root / "2.txt").write_text("mended")
    (root / "4.txt").write_text("mended")
    assert prepare(root, tmp_path / "out").counts == {"all": 6}
    assert not (tmp_path / "out" / STAGING).exists()


def test_otherwise_damaged_files_are_named_counted_and_tried_again(root, tmp_path):
    (root / "2.txt").write_text("why?")
    said: list[str] = []
    manifest = prepare(root, tmp_path / "out", strict=False, said=said)
    assert list(manifest.damaged) == ["2.txt"] and manifest.counts == {"all": 5}
    assert manifest.damaged["2.txt"] == "2.txt: has a question mark."  # no absolute path
    assert any("2.txt: has a question mark" in line for line in said)
    assert said[-1] == "6 of 6 samples (0 left out by rule, 1 damaged)"
    (root / "2.txt").write_text("mended")
    assert prepare(root, tmp_path / "out").counts == {"all": 6}


def test_a_missing_input_is_damage(root, tmp_path):
    preparation = Preparation("letters", root, tmp_path / "out", {})
    jobs = [Job("x", (root / "x.txt",), ("x.txt",), "x")]
    with pytest.raises(DataFormatError, match=r"x\.txt: missing"):
        preparation.run(
            [Listing("all", "list.txt", jobs)], shout, report=print, workers=1, strict=True
        )


@pytest.mark.parametrize("outputs", [("../x",), ("/x",), ("a", "a")])
def test_outputs_stay_inside_and_apart(root, tmp_path, outputs):
    preparation = Preparation("letters", root, tmp_path / "out", {})
    jobs = [Job("0.txt", (root / "0.txt",), outputs, "0")]
    with pytest.raises(DataFormatError, match="outside|2 times"):
        preparation.run(
            [Listing("all", "list.txt", jobs)], shout, report=print, workers=1, strict=True
        )
    assert not (tmp_path / "out").exists()


def test_other_settings_or_nothing_to_do_are_refused(root, tmp_path):
    prepare(root, tmp_path / "out")
    with pytest.raises(UserError, match="settings .*upper.*lower.*another folder"):
        prepare(root, tmp_path / "out", settings={"case": "lower"})
    with pytest.raises(UserError, match="not found"):
        Preparation("letters", tmp_path / "nowhere", tmp_path / "out", {})
    with pytest.raises(UserError, match="source itself"):
        Preparation("letters", root, root / "../source", {})
    with pytest.raises(UserError, match="--workers 0"):
        prepare(root, tmp_path / "out", workers=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nothing to prepare"):
        prepare(tmp_path / "empty", tmp_path / "other")


def test_a_torn_journal_line_costs_one_job(root, tmp_path):
    reference = prepare(root, tmp_path / "reference")
    (root / "4.txt").write_text("why?")
    with pytest.raises(DataFormatError):
        prepare(root, tmp_path / "out")
    journal = tmp_path / "out" / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 5  # what it is of, and four jobs
    journal.write_text("".join(lines)[:-10])
    (root / "4.txt").write_text("text 4")
    done: list[str] = []

    def note(job: Job, staged: list[Path]) -> str | None:
        done.append(job.name)
        return shout(job, staged)

    assert prepare(root, tmp_path / "out", work=note) == reference
    assert done == ["3.txt", "4.txt", "5.txt"]


SLOW = """
    import sys, time
    from pathlib import Path
    from stepsight.data.prepare.jobs import Job
    from stepsight.data.prepare.preparation import Listing, Preparation

    def shout(job, staged):
        time.sleep(0.05)
        staged[0].write_text(job.inputs[0].read_text().upper())

    if __name__ == "__main__":
        root, out = Path(sys.argv[1]), Path(sys.argv[2])
        names = sorted(path.name for path in root.iterdir())
        jobs = [Job(name, (root / name,), (f"a/{name}",), name) for name in names]
        preparation = Preparation("letters", root, out, {"case": "upper"})
        listings, workers = [Listing("all", "list.txt", jobs)], int(sys.argv[3])
        preparation.run(listings, shout, report=print, workers=workers, strict=True)
"""


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_continues_where_it_was(root, tmp_path, workers):
    for i in range(100):
        (root / f"{i}.txt").write_text(f"text {i}")
    reference = prepare(root, tmp_path / "reference")
    script, out = tmp_path / "slow.py", tmp_path / "out"
    script.write_text(textwrap.dedent(SLOW))
    command = [sys.executable, str(script), str(root), str(out), str(workers)]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob("a/*.txt"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)  # the parent alone: its workers must leave by themselves
    process.wait()
    _wait_for_an_empty_session(process.pid)
    done = [json.loads(line) for line in (out / JOURNAL).read_text().splitlines()[1:]]
    assert 1 <= len(done) < 100
    assert prepare(root, out) == reference
    assert tree(out) == tree(tmp_path / "reference")


def _wait_for_an_empty_session(leader: int) -> None:
    """Until no process of the group is left. Fails after a minute."""
    for _ in range(600):
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("workers outlived the run that was killed")
