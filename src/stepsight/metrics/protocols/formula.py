"""Steps of protocols as formulas, written from their fields: what is printed is what is computed.

`tasks.table.formula` joins them.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepsight.metrics.protocols.row import Protocol

# x: the prediction in the space of the fit, y: the truth there, d: true depth in metres.
TRUTH = {"depth": "d", "log": "ln d", "log1p": "ln(1 + d)", "disparity": "1/d"}
METRES = {
    "depth": "s x + t",
    "log": "exp(s x + t)",
    "log1p": "exp(s x + t) - 1",
    "disparity": "1 / max(s x + t, 0.001/m)",
}
FITS = {
    "affine": "s, t = argmin sum_V (s x + t - y)^2",
    "scale": "s = sum_V x y / sum_V x^2, t = 0",
    "median": "s = median_V y / median_V x, t = 0",
    "scale_l1": "s = argmin sum_V |s x - y| / y on 64 x 64 pixels, t = 0",
    "affine_l1": "s, t = argmin sum_V |s x + t - y| / y on 64 x 64 pixels",
    "ransac_regressor": "s, t by RANSAC (threshold MAD_V y, at most 1000 pairs), least squares on "
    "inliers; if s <= 0: s = mean_V y / mean_V x, t = 0",
}
SHIFTS = {  # a factor of the depth is a shift of its logarithm
    "scale": "s = 1, t = mean_V (y - x)",
    "median": "s = 1, t = median_V y - median_V x",
}


def depth_steps(row: Protocol) -> Iterator[str]:
    """From predicted depth to its metrics."""
    if row.needs == "film":
        yield "x, y, V: of all frames of a film as one"
    if row.needs == "order":
        yield "share of pairs (a nearer than b) with p_a < p_b"
        return
    relation = "disparity > t x its neighbour's, t = 1.05 .. 1.25 weighed by t, four neighbours"
    if row.needs == "amodal":
        yield f"R = share of outline pairs with {relation}"
        return
    if row.scored_in == "normalised":
        yield "y = clip(2 (d - q02) / (q98 - q02) - 1, -1, 1), -1 where there is no truth"
        yield "s, t = argmin sum_all (s x + t - y)^2, p = clip(s x + t, -1, 1)"
        return
    yield f"V = {_scored(row)}"
    space = row.space or "depth"
    if row.alignment == "none":
        yield "p = x in metres"
    else:
        fits = SHIFTS if space == "log" else {}
        yield f"y = {TRUTH[space]}, {fits.get(row.alignment, FITS[row.alignment])}{_fitted_on(row)}"
        yield f"p = {METRES[space]}"
    yield from _clip(row)
    if "boundary_f1" in row.metrics:
        yield f"F1 of pairs with {relation}"
    if "contour_f1_1px" in row.metrics:
        yield "F1 of neighbours with depth > (1 + t) x the pixel's, t = 0.05 .. 0.25 weighed by t"
    if row.scored_in == "disparity":
        yield "metrics of 1/p against 1/d"
    if row.needs == "film":
        yield "c(z) = z_{n+1}(at + true flow) - z_n; flicker = mean |c(ln p - ln d)|"
        yield "warped = mean |c(ln p)|, OPW = mean |c(p)|, where both frames show the point"
    if row.epsilon:
        yield f"AbsRel = mean |p - d| / (d + {row.epsilon:g})"


def _scored(row: Protocol) -> str:
    less, parts = "<" if row.strict else "<=", ["valid"]
    if row.crop != "none":
        parts.append(f"{row.crop} crop")
    if row.mask != "none":
        parts.append(f"{row.mask} region")
    if row.selects and row.min_depth is not None:
        upper = f" {less} {row.max_depth:g} m" if row.max_depth is not None else ""
        parts.append(f"{row.min_depth:g} {less} d{upper}")
    if row.min_valid is not None:
        parts.append(f"at least {row.min_valid} of them")
    return ", ".join(parts)


def _fitted_on(row: Protocol) -> str:
    parts = [" where x > 0"] if row.fit_positive else []
    if row.fit_width is not None:
        parts.append(f" on every row and about {row.fit_width} columns of larger images")
    return ",".join(parts)


def _clip(row: Protocol) -> Iterator[str]:
    low = f"{row.min_depth or 0:g}"
    if row.clip == "truth":
        yield f"p clipped to [{low}, max_V d]"
    elif row.clip == "range" and row.max_depth is not None:
        yield f"p clipped to [{low}, {row.max_depth:g}] m"
    elif row.clip == "range":
        yield f"p >= {low} m"


def flow_steps(row: Protocol) -> Iterator[str]:
    """From predicted flow to its metrics."""
    if row.max_flow is not None:
        yield f"V = valid, |f| < {row.max_flow:g} px"
    if row.alignment == "affine":
        yield "u and v each: s, t = argmin sum_V (s x + t - f)^2, p = s x + t"
    yield "e = |p - f|_2"
    if row.unit is not None:
        yield f"epe_units = mean_V e / {row.unit:g}"


def averaged(row: Protocol) -> str:
    """What is averaged over what."""
    if row.averaging == "pooled":
        return "pooled over the set"
    if row.pooled:
        return f"mean over images; {', '.join(row.pooled)} pooled over the set"
    return "mean over images"
