"""The two faces of a run, and its log."""

from __future__ import annotations

import io
import shlex

import pytest
import rich.console
from rich.text import Text

from stepsight.report.console import Console, clean, plain_line

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x1b[0m\u202e [bold]x[/bold]"
ROW = {
    "kind": "val",
    "step": 500,
    "images_seen": 8000,
    "task": "depth",
    "data": "scenes",
    "nfe": 4,
    "members": 1,
    "n": 64,
    "metrics": {"abs_rel": 0.28, "delta1": 0.5, "rmse": 0.4},
    "baselines": {"constant": {"abs_rel": 0.45}, "mean_map": {"abs_rel": 0.294}},
}


def parse(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(line))


def talk(console: Console) -> None:
    with console:
        console.header(["stepsight 0.1  run runs/x   seed 0"])
        for step in (100, 200):
            console.train(
                step,
                400,
                images_seen=16 * step,
                loss=0.184,
                losses={"depth": 0.11, "flow": 0.26},
                images_per_s=98.2,
                lr=9.1e-5,
                eta_s=80,
                data_share=0.01,
                peak_gb=3.1,
            )
        console.validation(500, [ROW], best="checkpoints/step-000500")
        console.warn(HOSTILE)
        console.phase("evaluate depth", 100)
        for _ in range(50):
            console.advance(2, images_per_s=40.0)
        console.done(72.3, "runs/x/report.html", "uv run evaluate.py --checkpoint runs/x")


def speak(tmp_path, tty: bool, width: int = 140) -> tuple[str, list[str]]:
    """What the terminal got, and the lines of the log."""
    sink = io.StringIO()
    terminal = rich.console.Console(file=sink, force_terminal=tty, width=width)
    talk(Console(tmp_path / "train.log", terminal=terminal))
    return sink.getvalue(), (tmp_path / "train.log").read_text().splitlines()


def test_a_pipe_gets_exactly_the_lines_of_the_log(tmp_path):
    shown, log = speak(tmp_path, tty=False, width=40)
    assert shown.splitlines() == log
    assert "\x1b" not in shown


def test_plain_lines_read_back_as_key_value(tmp_path):
    _, log = speak(tmp_path, tty=False)
    events = [parse(line) for line in log[1:]]
    train = [e for e in events if e["event"] == "train"]
    assert [int(e["step"]) for e in train] == [100, 200]
    assert float(train[0]["loss/flow"]) == 0.26 and float(train[0]["peak_gb"]) == 3.1
    (val,) = [e for e in events if e["event"] == "val"]
    assert (val["abs_rel"], val["abs_rel.mean_map"], val["nfe"]) == ("0.28", "0.294", "4")
    assert events[-1]["next"] == "uv run evaluate.py --checkpoint runs/x"


def test_progress_is_a_line_every_tenth(tmp_path):
    _, log = speak(tmp_path, tty=False)
    done = [int(parse(line)["done"]) for line in log if line.startswith("event=progress")]
    assert done == list(range(10, 101, 10))


def test_a_terminal_gets_a_bar_and_readable_validation_and_the_log_stays_plain(tmp_path):
    shown, log = speak(tmp_path, tty=True)
    assert "event=" not in shown and "━" in shown
    text = Text.from_ansi(shown).plain
    assert "200/400  50% | loss 0.184 (depth 0.11 flow 0.26)" in text
    assert "val@500  64 images a task  best -> checkpoints/step-000500" in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("depth ")]
    assert row == "depth AbsRel ↓ 0.280 ★ 0.294 mean map δ1 0.500 4 x 1".split()
    assert "done 1m12s  ->  runs/x/report.html" in text
    piped = tmp_path / "piped"
    piped.mkdir()
    assert log == speak(piped, tty=False)[1]


def test_a_terminal_gets_its_cursor_back_after_an_error(tmp_path):
    sink = io.StringIO()
    terminal = rich.console.Console(file=sink, force_terminal=True, width=100)
    with pytest.raises(ZeroDivisionError), Console(terminal=terminal) as console:
        console.phase("sweep", 10)
        console.advance(1)
        raise ZeroDivisionError
    assert sink.getvalue().rindex("\x1b[?25h") > sink.getvalue().rindex("\x1b[?25l")


@pytest.mark.parametrize("tty", [False, True])
def test_names_cannot_command_the_terminal(tmp_path, tty):
    shown, log = speak(tmp_path, tty=tty)
    for text in (shown, "\n".join(log)):
        assert "owned" not in text and "\x1b[31mred" not in text and "\u202e" not in text
        assert "[bold]x[/bold]" in text  # shown, not obeyed


@pytest.mark.parametrize("beaten, colour", [(0.9, "\x1b[32m"), (0.1, "\x1b[31m")])
def test_the_score_is_green_where_it_beats_the_hardest_baseline(beaten, colour):
    sink = io.StringIO()
    terminal = rich.console.Console(
        file=sink, force_terminal=True, width=140, color_system="standard"
    )
    easy = {"constant": {"abs_rel": 5.0}, "mean_map": {"abs_rel": beaten}}
    Console(terminal=terminal).validation(1, [ROW | {"baselines": easy}])
    assert f"{colour}0.280" in sink.getvalue()


def table(rows: list, earlier: list = (), width: int = 140) -> list[str]:
    sink = io.StringIO()
    terminal = rich.console.Console(file=sink, force_terminal=True, width=width)
    Console(terminal=terminal).validation(500, rows, earlier=earlier)
    return Text.from_ansi(sink.getvalue()).plain.splitlines()[1:]


def scoring(step: int, value: float | None, task: str = "depth") -> dict:
    return ROW | {"step": step, "task": task, "metrics": {"abs_rel": value, "delta1": 0.5}}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({500: 0.2}, "0.200 ★"),
        ({100: 0.3, 200: 0.25, 500: 0.2}, "0.200 ★"),
        ({100: 0.1, 200: 0.15, 500: 0.2}, "0.200 0.100 @100"),
        ({100: None, 500: 0.2}, "0.200 ★"),
        ({100: 0.3, 500: float("nan")}, "- 0.300 @100"),
        ({500: float("nan")}, "- 0.294"),
    ],
)
def test_a_star_is_where_a_task_was_never_better(values, told):
    rows = [scoring(step, value) for step, value in values.items()]
    earlier = [*rows, scoring(300, 0.01, "semantic"), scoring(600, 0.01)]
    (line,) = [line for line in table(rows[-1:], earlier) if line.startswith("depth")]
    assert f"AbsRel ↓ {told}" in " ".join(line.split())


def test_columns_of_a_validation_are_aligned_and_few_where_it_is_narrow():
    rows = [scoring(500, 0.2), scoring(500, 0.1234, "a task with a longer name")]
    for width, last in ((140, "calls"), (80, "trivial")):
        header, *lines = table(rows, width=width)
        assert header.split()[-1] == last and all(len(line) <= width for line in lines)
        assert {line.index("★") for line in lines} == {header.index("best so far")}


def test_other_ranks_are_silent(tmp_path):
    sink = io.StringIO()
    terminal = rich.console.Console(file=sink, force_terminal=True)
    talk(Console(tmp_path / "train.log", enabled=False, terminal=terminal))
    assert sink.getvalue() == "" and not (tmp_path / "train.log").exists()


def test_a_resumed_run_keeps_its_log(tmp_path):
    for text in ("first", "second"):
        with Console(
            tmp_path / "train.log", terminal=rich.console.Console(file=io.StringIO())
        ) as c:
            c.note(text)
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [parse(line)["text"] for line in lines] == ["first", "second"]


@pytest.mark.parametrize(
    "value", ['a "quoted" word', "two words", "a=b", "it's", "back\\slash", ""]
)
def test_any_value_survives_the_round_trip(value):
    assert parse(plain_line("note", text=value)) == {"event": "note", "text": value}


def test_nothing_is_written_for_none():
    assert plain_line("done", next=None, seconds=1.5) == "event=done seconds=1.5"


def test_clean_keeps_letters_of_any_script():
    assert clean("δ1 日本\n\x9b2Kend") == "δ1 日本 2Kend"


def test_work_in_between_is_counted_and_little_of_it_is_not_mentioned(tmp_path):
    def log(total: int) -> list[dict[str, str]]:
        terminal = rich.console.Console(file=io.StringIO(), force_terminal=True)
        with Console(tmp_path / f"{total}.log", terminal=terminal) as console:
            with console.counted("samples of files", total, least=64) as advance:
                for _ in range(total // 32):
                    advance(32)
            talk(console)  # the bar of training comes after it
        lines = (tmp_path / f"{total}.log").read_text().splitlines()
        return [parse(one) for one in lines if one.startswith("event=")][:4]

    first, *progress = log(96)
    assert (first["event"], first["name"], first["total"]) == ("phase", "samples of files", "96")
    assert [one["done"] for one in progress] == ["32", "64", "96"]
    assert all(one.get("name") != "samples of files" for one in log(64))
