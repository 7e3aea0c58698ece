"""Tables of claims, made to hold or not to hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stepsight.scaling.sampling.claims import Claim
from stepsight.scaling.sampling.paired import MetricTable, Numbers
from stepsight.scaling.sampling.sweeps import Family

IMAGES = 64
KEYS = [f"image-{i}" for i in range(IMAGES)]
NFE, MEMBERS_OF = (1, 4, 8), {0.0: (1,), 1.0: (1, 4)}
Factor = Callable[[float, int, int], float]  # of temperature, NFE and members


def family(temperature: float = 0.0, views: str = "none", spacing: str = "trailing") -> Family:
    text = f"{temperature:g}"
    return Family("runs/a", "64x64", "ddim", spacing, "trained", "mean", text, views)


def noise(seed: int) -> np.ndarray:
    """Of mean 0, "n": images come in twins with mirrored noise, so that factors alone count."""
    half = 0.02 * np.random.default_rng(seed).standard_normal(IMAGES // 2)
    return np.concatenate([half, -half])


HARDNESS = np.tile(np.random.default_rng(0).gamma(2.0, 0.1, IMAGES // 2), 2)


def per_image(values: np.ndarray) -> Numbers:
    return np.stack([values, np.ones(len(values))], axis=1)


def pooled(values: np.ndarray) -> Numbers:
    """Values of images that weigh differently, twins alike."""
    weight = np.tile(np.arange(1, IMAGES // 2 + 1, dtype=float), 2)
    return np.stack([weight * values, weight], axis=1)


def tables(
    factor: Factor,
    rows: Callable[[np.ndarray], Numbers] = per_image,
    temperatures: Sequence[float] = (0.0, 1.0),
    metric: str = "abs_rel",
    **changed,
) -> list[MetricTable]:
    """A table a temperature: what makes an image hard is shared, and changed by a factor of the
    setting."""
    found = []
    for temperature in temperatures:
        settings = {
            (nfe, members): rows(
                HARDNESS * factor(temperature, nfe, members) * (1 + noise(10 * nfe + members))
            )
            for nfe in NFE
            for members in MEMBERS_OF[temperature]
        }
        own = {"task": "depth", "metric": metric, "family": family(temperature), "keys": KEYS}
        own |= {"averaging": "pooled" if rows is pooled else "per image", "settings": settings}
        found.append(MetricTable(**(own | changed)))
    return found


def asked(claims: Sequence[Claim], statement: str, **sides) -> list[Claim]:
    """The claims of a statement whose better-paid side is as named."""
    found = [one for one in claims if one.statement == statement]
    for name, value in sides.items():
        found = [one for one in found if getattr(one.other, name) == value]
    return found


def verdicts(claims: Sequence[Claim]) -> set[str]:
    return {claim.verdict for claim in claims}


def helps(temperature: float, nfe: int, members: int) -> float:
    return 1 - 0.05 * (nfe > 1) - 0.04 * (members > 1)


def hurts(temperature: float, nfe: int, members: int) -> float:
    return 1 + 0.05 * (nfe > 1) + 0.02 * (nfe > 4) + 0.04 * (members > 1)


def nothing(temperature: float, nfe: int, members: int) -> float:
    return 1.0
