"""`stepsight export`: what it writes and says, and what it refuses."""

from __future__ import annotations

import pytest

from stepsight.cli.main import main
from stepsight.exporting import files


@pytest.fixture(scope="module")
def run(laboratory, tmp_path_factory):
    lab = laboratory()
    return str(lab.fit(lab.config(("depth", "flow")), tmp_path_factory.mktemp("run") / "tiny"))


@pytest.fixture
def export(run, capsys):
    def call(*arguments):
        status = main(["export", "--checkpoint", run, *arguments])
        return status, capsys.readouterr()

    return call


@pytest.fixture
def unrecorded(monkeypatch):
    """Graphs run as the modules that they would be recorded from."""

    def write(answer, path, format):
        path.write_bytes(b"graph")
        return lambda given: answer(**given)

    monkeypatch.setattr(files, "write", write)


def test_a_graph_is_compared_timed_and_written(export, unrecorded, tmp_path):
    out = tmp_path / "new" / "flow.onnx"
    how = ("--task", "flow", "--format", "onnx", "--size", "24x40", "--nfe", "1", "--members", "2")
    status, said = export("--out", str(out), *how)
    assert status == 0, said.err
    assert (
        "answer      flow: 1 call of 2 members, merged by mean, from noise, a constant" in said.out
    )
    assert "pictures    24 x 40, seen at 16 x 24" in said.out
    assert "input       second: float32 1 3 h w" in said.out
    assert "parity      24 x 40: largest difference 0.0e+00, bar 1e-04" in said.out
    assert "speed       onnxruntime" in said.out
    assert [*out.parent.iterdir()] == [out]


def test_a_graph_that_answers_otherwise_is_not_written(export, monkeypatch, tmp_path):
    def write(answer, path, format):
        path.write_bytes(b"graph")
        return lambda given: tuple(x + 1 for x in answer(**given))

    monkeypatch.setattr(files, "write", write)
    status, said = export("--format", "torch", "--out", str(tmp_path / "depth.pt2"), "--nfe", "1")
    assert status == 1 and "the file answers otherwise than the pipeline" in said.out
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("--format", "onnx", "--out", "depth.pt2"), "name a file that ends in .onnx"),
        (("--format", "torch", "--out", "depth"), "name a file that ends in .pt2"),
        (("--format", "torch", "--out", "d.pt2", "--size", "64"), "--size 64: write two numbers"),
        (
            ("--format", "torch", "--out", "d.pt2", "--size", "8x8", "--dynamic"),
            "exclude each other",
        ),
        (("--format", "torch", "--out", "d.pt2", "--task", "deep"), "--task deep"),
        (("--format", "torch", "--out", "d.pt2", "--merge", "sum"), "--merge sum"),
        (("--format", "torch", "--out", "d.pt2", "--members", "0"), "--members 0"),
        (
            (
                "--format",
                "torch",
                "--out",
                "d.pt2",
                "--dynamic",
                "--members",
                "2",
                "--noise",
                "constant",
            ),
            "noise that is a constant has one size",
        ),
    ],
)
def test_what_cannot_be_is_refused(export, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    status, said = export(*arguments)
    assert status == 2 and reason in said.err
    assert not [*tmp_path.iterdir()]
