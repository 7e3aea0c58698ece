"""The report of a run that is still working."""

from __future__ import annotations

from stepsight.report import page
from stepsight.training.dense import live
from stepsight.training.dense.live import FIRST, SHARE, LiveReport


def test_a_page_costs_a_run_little_and_never_breaks_it(tmp_path, monkeypatch):
    now, written, said = [0.0], [], []

    def write_report(folder, working):
        now[0] += 3.0  # seconds that it costs
        if len(written) == 2:
            raise ZeroDivisionError("no number")
        written.append((now[0], working))

    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(page, "write_report", write_report)
    report, began = LiveReport(), FIRST / SHARE
    for now[0] in (began - 1, began, began + 20, began + 3 + 3 / SHARE, 500.0):
        report.update(tmp_path, said.append)
    assert written == [(began + 3, True), (began + 6 + 3 / SHARE, True)]
    assert said == ["the page of the run so far could not be written: ZeroDivisionError: no number"]
