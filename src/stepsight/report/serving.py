"""The page of a folder, whatever the folder holds: written into it, or shown to a browser on this
machine and written anew when its files have changed.
"""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from stepsight.errors import UserError
from stepsight.report import page, scores
from stepsight.report.run_folder import is_working
from stepsight.report.scaling import contents
from stepsight.report.scaling import page as scaling_page
from stepsight.report.study import page as study_page
from stepsight.report.sweep import page as sweep_page
from stepsight.results import read_results
from stepsight.scaling.analysis.folder import read_scaling

HOST = "127.0.0.1"  # nobody else is to see what a run folder holds
READ = (".json", ".jsonl", ".csv", ".yaml", ".txt")  # files that pages are made from
BOOTSTRAP = 200  # resamples of a ladder's intervals, as in `stepsight scaling report`


def write(folder: Path) -> Path:
    """Write the page of a run, an evaluation, a sweep, a ladder or a study; returns its path.

    Raises `UserError` where the folder is none of them, `DataFormatError` for a damaged file.
    """
    if (folder / "study.json").is_file():
        return study_page.write(folder)
    if (folder / "ladder.json").is_file():
        out = folder / "report"
        return scaling_page.write(contents.analyse(read_scaling([folder], out), BOOTSTRAP), out)
    if (folder / "sweep.csv").is_file():
        return sweep_page.write(folder)
    if (folder / "results.json").is_file():
        return scores.write_page(folder / "evaluation.html", read_results(folder / "results.json"))
    if folder.is_dir() and not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder}: holds no run (config.yaml), evaluation (results.json), sweep (sweep.csv), "
            f"ladder (ladder.json) or study (study.json). Name the folder of one."
        )
    return page.write_report(folder, working=is_working(folder))


class PageServer(ThreadingHTTPServer):
    """Answers with the page of a folder, and with nothing else, at 127.0.0.1."""

    def __init__(self, folder: Path, port: int) -> None:
        """port: 0 for one that is free. Raises `UserError` where it cannot be had, or where the
        folder has no page."""
        self._folder, self._writing = folder, Lock()  # figures are drawn one after the other
        self._page = write(folder)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(f"--serve {port}: {error}. Choose another port, e.g. 8765.") from None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def text(self) -> str:
        """The page as the files are now."""
        with self._writing:
            if self._is_old():
                self._page = write(self._folder)
            return self._page.read_text(encoding="utf-8")

    def _is_old(self) -> bool:
        written = self._page.stat().st_mtime_ns
        files = (path for path in self._folder.rglob("*") if path.suffix in READ)
        return any(path.stat().st_mtime_ns > written for path in files)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/":
            return self._answer(404, "There is one page: /", "text/plain")
        assert isinstance(self.server, PageServer)
        try:
            self._answer(200, self.server.text(), "text/html")
        except UserError as error:
            self._answer(500, str(error), "text/plain")

    def _answer(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are nobody's concern."""
