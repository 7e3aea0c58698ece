"""What a run says while it works: live bars on a terminal, `key=value` lines into a pipe.

Either way the plain lines also go to a log file, so `train.log` of a run folder is complete and
greppable. Only the first process speaks: the others hold a `Console(enabled=False)`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import rich.console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from stepsight.measures import duration, headline, measure, number, spoken
from stepsight.scaling.sampling.wording import count

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")
WIDE = 90  # columns of a terminal that has room for all of a validation
_BARE = re.compile(r"[^\s\"'\\=]+")


def clean(text: object) -> str:
    """`text` on one line, without terminal escapes and other characters that are not printed."""
    visible = _ESCAPE.sub("", str(text)).replace("\n", " ").replace("\t", " ")
    return "".join(c for c in visible if unicodedata.category(c)[0] != "C")


def plain_line(event: str, **fields: object) -> str:
    """`event=train step=100 loss=0.21`: values with spaces are quoted, None is left out.

    Reads back with `dict(word.split("=", 1) for word in shlex.split(line))`.
    """
    pairs = {"event": event, **fields}
    return " ".join(
        f"{_key(key)}={_word(value)}" for key, value in pairs.items() if value is not None
    )


class Console:
    """The voice of one run.

    `log` is the file that receives every plain line (appended to, so that a resumed run keeps its
    past). `terminal` is where to print; left out, standard output, live if it is a terminal.
    Use as a context manager, or call `close`: it gives the terminal its cursor back.
    """

    def __init__(
        self,
        log: Path | None = None,
        *,
        enabled: bool = True,
        terminal: rich.console.Console | None = None,
    ) -> None:
        self._enabled = enabled
        self._terminal = terminal or rich.console.Console(highlight=False)
        self._live = enabled and self._terminal.is_terminal
        self._log: IO[str] | None = None
        if enabled and log is not None:
            self._log = log.open("a", encoding="utf-8")
        self._progress: Progress | None = None
        self._bar = TaskID(0)
        self._phase = _Phase("", 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take down the live bar and close the log."""
        self._stop_bar()
        if self._log is not None:
            self._log.close()
            self._log = None

    def header(self, lines: Iterable[str]) -> None:
        """The few lines that say what is about to happen, verbatim on both faces."""
        for line in map(clean, lines):
            self._say(line, Text(line))

    def train(
        self,
        step: int,
        total: int,
        *,
        images_seen: int,
        loss: float,
        losses: Mapping[str, float],
        images_per_s: float,
        lr: float,
        eta_s: float,
        data_share: float | None = None,
        **more: float,
    ) -> None:
        """One interval of training; `losses` per task, `more` joins the line (`peak_gb=3.1`)."""
        per_task = " ".join(f"{clean(task)} {number(value, 2)}" for task, value in losses.items())
        parts = [
            f"loss {number(loss)} ({per_task})" if per_task else f"loss {number(loss)}",
            f"{images_per_s:.0f} img/s",
            f"lr {number(lr, 2)}",
            *(f"{clean(name)} {number(value)}" for name, value in more.items()),
            f"ETA {_clock(eta_s)}",
        ]
        named = {f"loss/{task}": value for task, value in losses.items()}
        fields = {"step": step, "total": total, "images_seen": images_seen, "loss": loss} | named
        fields |= {"lr": lr, "images_per_s": images_per_s, "data_share": data_share} | more
        self._write(plain_line("train", **fields, eta_s=eta_s))
        self._draw("train", step, total, " | ".join(parts))

    def validation(
        self,
        step: int,
        rows: Iterable[Mapping[str, Any]],
        best: str | None = None,
        earlier: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """The `val` rows of `metrics.jsonl` for one step, a table with a line a task; `best` names
        the checkpoint, if any. earlier: rows of the same run."""
        rows, earlier = list(rows), list(earlier)
        for row in rows:
            self._write(plain_line("val", **{"step": step, **_flat(row)}))
        images = max((row["n"] for row in rows), default=0)
        title = Text.assemble(
            (f"val@{step}", "bold"), (f"  {count(images, 'image')} a task", "dim")
        )
        if best is not None:
            self._write(plain_line("best", step=step, checkpoint=best))
            title.append(f"  best -> {clean(best)}", style="green")
        self._show(title)
        if self._live:
            self._terminal.print(_val_table(rows, earlier, self._terminal.width >= WIDE))

    def phase(self, name: str, total: int) -> None:
        """Begin a counted piece of work, such as an evaluation of `total` images."""
        self._stop_bar()
        self._phase = _Phase(clean(name), total)
        self._write(plain_line("phase", name=name, total=total))
        self._draw(self._phase.name, 0, total, "")

    def advance(self, n: int = 1, **figures: float) -> None:
        """`n` more units of the current phase are done; a plain line appears every tenth."""
        phase = self._phase
        before, phase.done = phase.done, phase.done + n
        if phase.tenth(before) != phase.tenth(phase.done):
            counts = {"name": phase.name, "done": phase.done, "total": phase.total}
            self._write(plain_line("progress", **counts, **figures))
        shown = " | ".join(f"{clean(name)} {number(value)}" for name, value in figures.items())
        self._draw(phase.name, phase.done, phase.total, shown)

    @contextmanager
    def counted(self, name: str, total: int, least: int = 0) -> Iterator[Callable[[int], None]]:
        """A phase in the middle of another piece of work: yields what to call with units done.

        A phase of at most `least` units is not shown.
        """
        if total <= least:
            yield lambda done: None
            return
        self.phase(name, total)
        try:
            yield self.advance
        finally:
            self._stop_bar()

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self._say(plain_line("note", text=text), Text(clean(text)))

    def warn(self, text: str) -> None:
        """Something that may spoil the result."""
        self._say(plain_line("warning", text=text), Text(f"warning: {clean(text)}", style="yellow"))

    def done(self, seconds: float, result: Path | str, next_command: str | None = None) -> None:
        """The end: how long it took, what to open, and what to type next."""
        self._stop_bar()
        shown = Text(f"done {duration(seconds)}  ->  {clean(result)}", style="bold")
        if next_command:
            shown.append(f"     next: {clean(next_command)}", style="cyan")
        plain = plain_line("done", seconds=round(seconds, 1), result=result, next=next_command)
        self._say(plain, shown)

    def _say(self, plain: str, shown: Text) -> None:
        self._write(plain)
        self._show(shown)

    def _write(self, plain: str) -> None:
        """A plain line to the log, and to the output unless a person watches it live."""
        if self._log is not None:
            print(plain, file=self._log, flush=True)
        if self._enabled and not self._live:
            self._terminal.print(plain, markup=False, highlight=False, soft_wrap=True)

    def _show(self, shown: Text) -> None:
        if self._live:
            self._terminal.print(shown, soft_wrap=True)

    def _draw(self, name: str, done: int, total: int, figures: str) -> None:
        if not self._live:
            return
        shown = f"| {figures}" if figures else ""
        if self._progress is None:
            self._progress = _progress(self._terminal)
            self._bar = self._progress.add_task(name, total=total, figures="")
            self._progress.start()
        self._progress.update(self._bar, completed=done, total=total, figures=shown, refresh=True)

    def _stop_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


@dataclass
class _Phase:
    """A counted piece of work and how much of it is done."""

    name: str
    total: int
    done: int = 0

    def tenth(self, done: int) -> int:
        return 10 * done // max(self.total, 1)


def _progress(terminal: rich.console.Console) -> Progress:
    """A bar redrawn only when something changed, so that it costs no thread while training; names
    are never read as markup."""
    done = "{task.completed:.0f}/{task.total:.0f} {task.percentage:>3.0f}%"
    texts = "{task.description}", done, "{task.fields[figures]}"
    name, count, figures = (TextColumn(text, markup=False) for text in texts)
    bar = BarColumn(bar_width=16)
    return Progress(name, bar, count, figures, console=terminal, auto_refresh=False)


def _flat(row: Mapping[str, Any]) -> dict[str, object]:
    """A `val` row without nesting: metrics by name, baselines as `metric.baseline`."""
    fields = {k: v for k, v in row.items() if k not in ("kind", "metrics", "baselines")}
    fields |= row["metrics"]
    for baseline, values in row.get("baselines", {}).items():
        fields |= {f"{metric}.{baseline}": value for metric, value in values.items()}
    return fields


def _val_table(
    rows: list[Mapping[str, Any]], earlier: list[Mapping[str, Any]], wide: bool
) -> Table:
    """A line a task: its main metric, green where it beats the hardest of the trivial predictors
    beside it, red elsewhere; a star where it was never better in this run, else when it was."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    columns = "task", "", "score", "best so far", "trivial", "also", "calls"
    for name in columns[: None if wide else -2]:
        table.add_column(name, justify="right" if name == "score" else "left", no_wrap=True)
    for row in rows:
        metrics, names = row["metrics"], headline(row["task"], row["metrics"])
        if not names:
            continue
        main, rest = names[0], names[1:]
        arrow = {"higher": "↑", "lower": "↓"}.get(measure(main).better, "")
        rivals = {k: v[main] for k, v in row.get("baselines", {}).items() if main in v}
        rival = min(rivals, key=lambda name: measure(main).error(rivals[name]), default="")
        beaten = rival and measure(main).beats(metrics[main], rivals[rival])
        score = Text(number(metrics[main]), "" if not rival else "green" if beaten else "red")
        trivial = f"{number(rivals[rival])} {clean(spoken(rival))}" if rival else ""
        also = "  ".join(f"{clean(measure(name).label)} {number(metrics[name])}" for name in rest)
        told = f"{clean(measure(main).label)} {arrow}", score, _best(row, main, earlier), trivial
        more = Text(also, "dim"), Text(f"{row['nfe']} x {row['members']}", "dim")
        table.add_row(clean(row["task"]), *told, *(more if wide else ()))
    return table


def _best(row: Mapping[str, Any], metric: str, earlier: list[Mapping[str, Any]]) -> Text:
    """A star, or the best of the earlier rows on the same pictures, and its step."""
    alike = [each for each in earlier if _whose(each) == _whose(row)]
    known = {each["step"]: each["metrics"].get(metric) for each in alike}
    known = {at: v for at, v in known.items() if v is not None and v == v and at < row["step"]}
    step, value = (
        min(known, key=lambda at: measure(metric).error(known[at]), default=None),
        row["metrics"][metric],
    )
    if value == value and (step is None or not measure(metric).beats(known[step], value)):
        return Text("★", "bold")
    if step is None:
        return Text()
    return Text(f"{number(known[step])} @{step}", "dim")


def _whose(row: Mapping[str, Any]) -> tuple[object, object]:
    return row["task"], row["data"]


def _key(name: str) -> str:
    return re.sub(r"[\s=\"'\\]+", "_", clean(name))


def _word(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = clean(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
