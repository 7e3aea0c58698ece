"""Fits to columns by name: which are inputs, which is the result, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight import scaling
from stepsight.errors import UserError
from stepsight.scaling.laws import fits
from stepsight.scaling.laws.columns import NAMES

N = np.tile(np.geomspace(1e7, 1e10, 6), 6)
D = np.repeat(np.geomspace(1e8, 1e12, 6), 6)
TABLE = {"params": N, "tokens": D, "loss": 1.69 + 406.4 / N**0.34 + 410.7 / D**0.28}


def test_the_same_fit_as_of_arrays():
    one = scaling.fit("chinchilla", TABLE, bootstrap=20)
    assert one == fits.fit("chinchilla", np.stack([N, D], 1), TABLE["loss"], bootstrap=20)


def test_columns_are_found_by_role_by_name_or_by_place():
    mixed = {"loss": TABLE["loss"], "seed": N, "tokens": D, "params": N}
    renamed = {"width": N, "images": D, "error": TABLE["loss"]}
    wanted = scaling.fit("chinchilla", TABLE, bootstrap=0).params
    assert scaling.fit("chinchilla", mixed, y="loss", bootstrap=0).params == wanted
    by_place = scaling.fit("chinchilla", renamed, bootstrap=0)
    named = scaling.fit("chinchilla", renamed, x=["width", "images"], y="error", bootstrap=0)
    assert by_place.params == named.params == wanted
    assert isinstance(by_place, fits.Fit) and by_place.inputs == ("width", "images")
    one = scaling.fit("power", {"flops": [1, 2, 4, 8], "error": [8, 4, 2, 1]}, bootstrap=0)
    assert one.params == pytest.approx({"A": 8.0, "a": 1.0})
    assert one == scaling.fit(
        "power", {"flops": [1, 2, 4, 8], "e": [8, 4, 2, 1]}, x="flops", bootstrap=0
    )


def test_groups_may_be_a_column():
    runs = [f"run {i % 6}" for i in range(36)]
    table = {"run": runs, **TABLE}
    by_name = scaling.fit("chinchilla", table, groups="run", bootstrap=20)
    assert by_name == scaling.fit("chinchilla", TABLE, groups=runs, bootstrap=20)
    assert isinstance(by_name, fits.Fit) and by_name.resampling == "runs"
    with pytest.raises(UserError, match="differ in length: .*groups 2"):
        scaling.fit("chinchilla", TABLE, groups=["a", "b"])


def test_emergence_is_one_of_them():
    loss, images = np.repeat(np.linspace(2.25, 1.9, 8), 5), np.tile(64.0 * 4.0 ** np.arange(5), 8)
    elbow = 0.06 * np.log(images) ** 0.9 + 1.8
    table = {"loss": loss, "images": images, "score": 0.45 * np.maximum(0, elbow - loss) + 0.25}
    one = scaling.fit("emergence", table, base=0.25, bootstrap=0)
    assert one.params["C"] == pytest.approx(1.8, abs=1e-3) and "emergence" in NAMES


def test_what_is_refused():
    with pytest.raises(UserError, match="Did you mean 'kaplan'"):
        scaling.fit("kaplen", TABLE)
    with pytest.raises(UserError, match="no column 'token'. Did you mean 'tokens'"):
        scaling.fit("chinchilla", TABLE, x=["params", "token"])
    with pytest.raises(UserError, match="has inputs of its own, 1 .x.; x names params, tokens"):
        scaling.fit("power", TABLE)
    with pytest.raises(UserError, match="'tokens' is not numeric"):
        scaling.fit("chinchilla", TABLE | {"tokens": ["many"] * 36})
    with pytest.raises(UserError, match="differ in length"):
        scaling.fit("chinchilla", TABLE | {"tokens": D[:5]})
    with pytest.raises(UserError, match="'tokens' has 2 axes"):
        scaling.fit("chinchilla", TABLE | {"tokens": D[:, None]})
    with pytest.raises(UserError, match="no columns"):
        scaling.fit("power", {})
    with pytest.raises(AttributeError, match="no attribute 'fot'"):
        scaling.fot  # noqa: B018
