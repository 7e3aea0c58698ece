"""What a report on scaling says, in words and for machines: all fits that the records allow.

Everything is made anew from the records each time, so that a report follows its ladder; only the
forecasts are kept as they were made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from stepsight.report.verdict import TaskSentence
from stepsight.scaling.analysis.axes import axis_laws
from stepsight.scaling.analysis.curves import Curve, curves, headline
from stepsight.scaling.analysis.emergence import Emergence, emergences
from stepsight.scaling.analysis.folder import ScalingFolder
from stepsight.scaling.analysis.laws import CurveLaws, Law, laws_of
from stepsight.scaling.analysis.relations import Panel, panels
from stepsight.scaling.analysis.words import briefly, clean, forecast_summary, judgement
from stepsight.scaling.ladders.forecast import Forecast, ScoredForecast
from stepsight.scaling.laws.fits import Fit
from stepsight.scaling.plain import plain

TOO_FEW = "There are too few points for a law: measure three runs or more."
Forecasts = list[tuple[Forecast, ScoredForecast | None]]


@dataclass(frozen=True)
class Analysis:
    """All that a report says."""

    folder: ScalingFolder
    headline: list[CurveLaws]
    others: list[CurveLaws]
    relations: list[Panel]
    emergences: list[Emergence]
    axes: list[Law]  # over distinct samples, resolution, experts
    notes: list[str]

    @property
    def curves(self) -> list[CurveLaws]:
        return self.headline + self.others

    @property
    def forecasts(self) -> Forecasts:
        """Forecasts with their outcomes, then those that wait for an outcome."""
        settled = [(scored.forecast, scored) for scored in self.folder.settled]
        return [*settled, *((forecast, None) for forecast in self.folder.waiting)]

    @property
    def main_laws(self) -> list[Law]:
        """Envelopes and joint laws of the headline."""
        laws = [law for curve in self.headline for law in (curve.envelope, curve.joint)]
        return [law for law in laws if law is not None]


def analyse(folder: ScalingFolder, bootstrap: int) -> Analysis:
    """Fit everything that the records allow; intervals by `bootstrap` resamples."""
    every, notes = curves(folder.records, folder.trunks)
    first = headline(every)
    main = [laws_of(curve, bootstrap) for curve in first]
    others = [laws_of(curve, bootstrap) for curve in every if curve not in first]
    relations, unpaired = panels(folder.records, main, bootstrap)
    return Analysis(
        folder=folder,
        headline=main,
        others=others,
        relations=relations,
        emergences=list(emergences(folder.records, bootstrap)),
        axes=list(axis_laws(folder.records, bootstrap)),
        notes=[*folder.notes, *notes, *unpaired],
    )


def to_dict(analysis: Analysis) -> dict[str, Any]:
    """The report for machines."""
    folder = analysis.folder
    settled = [
        asdict(row.forecast)
        | {"outcome": row.outcome, "measured": row.time, "inside": row.inside, "error": row.error}
        for row in folder.settled
    ]
    laws = [
        law.to_dict() | {"clean": clean(law.fit), "says": judgement(law.fit)}
        for law in (*(law for curve in analysis.curves for law in curve.laws), *analysis.axes)
    ]
    return plain(
        {
            "records": len(folder.records),
            "runs": len({record.run for record in folder.records}),
            "laws": laws,
            "forecasts": settled,
            "waiting": [asdict(forecast) for forecast in folder.waiting],
            "relations": [panel.to_dict() for panel in analysis.relations],
            "emergence": [elbow.to_dict() for elbow in analysis.emergences],
            "rungs": [asdict(rung) | {"ladder": rung.ladder.name} for rung in folder.rungs],
            "tuned": [asdict(tuned) | {"kept": tuned.kept} for tuned in folder.tuned],
            "notes": analysis.notes,
        }
    )


def summary(analysis: Analysis) -> list[str]:
    """Laws with their verdicts, forecasts against outcomes, and what failed, one line each."""
    laws = [
        f"{law.curve.name} against {law.against}: {briefly(law.fit)}"
        for law in (*analysis.main_laws, *analysis.axes)
    ]
    return [*(laws or [TOO_FEW]), *(f"{said.task}: {said.text}" for said in _outcomes(analysis))]


def sentences(analysis: Analysis) -> list[TaskSentence]:
    """What a reader needs first: of every headline what compute bought, then what came true."""
    bought = [
        TaskSentence(laws.curve.name, None, _bought(laws.curve, laws.envelope.fit))
        for laws in analysis.headline
        if laws.envelope is not None
    ]
    return [*(bought or [TaskSentence("laws", None, TOO_FEW)]), *_outcomes(analysis)]


def _bought(curve: Curve, fit: Fit) -> str:
    """The gain of the last ten times of compute, or of all where there are fewer."""
    ((low, high),) = fit.ranges.values()
    times = min(10.0, high / low)
    if not fit.residuals:
        return f"{judgement(fit)}"
    off = 1 - float(fit.predict(high) / fit.predict(high / times))
    return (
        f"the last {times:.2g} x of compute took {off:.1%} off the {curve.label}. {judgement(fit)}"
    )


def _outcomes(analysis: Analysis) -> Iterator[TaskSentence]:
    """How forecasts did, and what failed."""
    forecasts = forecast_summary(analysis.folder.settled, analysis.folder.waiting)
    if forecasts:
        yield TaskSentence("forecasts", None, f"{forecasts}.")
    failed, rungs = analysis.folder.failed, analysis.folder.rungs
    if failed:
        yield TaskSentence("rungs", None, f"{len(failed)} of {len(rungs)} failed.")
