"""Every tree of the zoo opens with the values that its writer had, or is refused with its cause."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import zoo.containers  # noqa: F401
import zoo.depths  # noqa: F401
import zoo.labels  # noqa: F401
import zoo.layouts  # noqa: F401
import zoo.lists  # noqa: F401
import zoo.masks  # noqa: F401
import zoo.pictures  # noqa: F401
import zoo.planted  # noqa: F401
import zoo.vectors  # noqa: F401
from zoo.world import TREES, Expected

from stepsight.data.looking.found import Answers, FoundTree
from stepsight.data.looking.look import look
from stepsight.data.table import Source, open_source, settings_for
from stepsight.errors import UserError
from stepsight.types import Sample


def test_the_zoo_is_large():
    assert len(TREES) >= 60


@pytest.mark.parametrize("name", TREES)
def test_tree(name: str, tmp_path: Path):
    root = tmp_path / "own"
    root.mkdir()
    expected = TREES[name](root)
    answers = Answers(**expected.answers)
    if expected.refused:
        with pytest.raises(UserError, match=expected.refused):
            look(root, answers)
        return
    found = look(root, answers)
    said = sentences(found)
    for pattern in expected.says:
        assert any(re.search(pattern, sentence) for sentence in said), (pattern, said)
    assert bool(found.problems) != expected.clean, found.problems
    assert found.options.items() >= expected.options.items()
    assert {*found.splits} == {*expected.splits}
    assert [*found.truth] == [*expected.truth]
    source = open_source(settings_for("folder", **found.write(tmp_path / "out")), "all")
    read = list(samples(source))
    for quantity, values in expected.truth.items():
        assert len(read) == len(values), [sample and sample.key for sample in read]
        for sample, value in zip(read, values):
            if value is not None and sample is not None:
                check(quantity, sample, value, expected)
    check_pictures("image", read, expected.pictures)
    check_pictures("second", read, expected.seconds)


def sentences(found: FoundTree) -> list[str]:
    evidence = [sentence for truth in found.truth.values() for sentence in truth.evidence]
    return [*found.problems, *found.notes, *evidence]


def samples(source: Source):
    for index in range(len(source)):
        try:
            yield source[index]
        except UserError:
            yield None


def check(quantity: str, sample: Sample, expected: np.ndarray, about: Expected) -> None:
    """The values of a sample and where they count are those that were written."""
    value = getattr(sample, quantity)
    assert value is not None, (quantity, sample.key)
    actual = value.numpy() if value.ndim == 2 else value.permute(1, 2, 0).numpy()
    if quantity in ("labels", "modal", "amodal"):
        assert np.array_equal(np.squeeze(actual), np.squeeze(expected)), (quantity, sample.key)
        return
    wanted = expected if expected.ndim == 3 else expected[..., None]
    known = np.isfinite(wanted).all(-1)
    valid = getattr(sample, f"{quantity}_valid")
    assert np.array_equal(valid[0].numpy(), known), (quantity, sample.key)
    np.testing.assert_allclose(
        actual[known], wanted[known], rtol=about.tolerance, atol=about.tolerance / 10
    )


def check_pictures(name: str, read: list, expected: list | None) -> None:
    for sample, picture in zip(read, expected or []):
        if sample is not None and picture is not None:
            actual = getattr(sample, name).permute(1, 2, 0).numpy().astype(int)
            assert actual.shape == picture.shape
            assert np.abs(actual - picture).mean() < 3, (name, sample.key)


def test_answers_are_the_flags_of_the_command():
    from stepsight.cli.data.look import Args

    assert {*asdict(Answers())} < {*Args.__dataclass_fields__}
