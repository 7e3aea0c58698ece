"""The page: what is dropped and chosen on the left, the answer on the right.

Nothing on it comes from elsewhere: letters are the system's, and `serving` forbids the browser to
ask other machines. What goes wrong becomes a sentence where the answer would stand.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import randrange
from typing import Any
from urllib.parse import quote

import gradio as gr

from stepsight.demo.answering import Answerer
from stepsight.demo.asking import DemoQuestion, formats_of, generates
from stepsight.demo.worlds import DemoWorlds
from stepsight.errors import UserError
from stepsight.predicting.film.reading import SUFFIXES
from stepsight.report import rendering
from stepsight.report.rendering import render

MOST_CALLS, MOST_MEMBERS = 64, 32  # of the sliders, unless the run chose more
TITLE = "stepsight demo"
CSS = [Path(rendering.__file__).parent / "templates" / name for name in ("legend.css", "demo.css")]
NOTHING_YET = "Drop a picture and press Predict: the answer stands here."
FAULT = "A fault of the program, not of yours. Its traceback is where the demo was started."


def build_page(answerer: Answerer, worlds: DemoWorlds | None, about: str) -> gr.Blocks:
    """The page of a model; about: what it is, a line. worlds: to draw pictures from."""
    tasks = [*answerer.pipeline.tasks]
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(render("demo_head", title=TITLE, about=about))
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                task = gr.Radio(tasks, value=tasks[0], label="Task", visible=len(tasks) > 1)
                with gr.Tab("Picture"):
                    pictures = [_drop("Picture"), _drop("Second frame"), _drop("Visible part")]
                    drawn = gr.Button("Draw a procedural scene", visible=worlds is not None)
                    predict = gr.Button("Predict", variant="primary")
                with gr.Tab("Film"):
                    film = gr.File(label="Film", file_types=[*SUFFIXES])
                    play = gr.Button("Predict the film", variant="primary")
                calls = gr.Slider(1, MOST_CALLS, 1, step=1, label="Calls", info="steps of a member")
                members = gr.Slider(
                    1, MOST_MEMBERS, 1, step=1, label="Members", info="several have a spread"
                )
                budget = gr.Textbox(
                    label="Budget",
                    info="in place of calls and members, by the run's sweep",
                    placeholder="16nfe, 50gflop or 200ms",
                )
                with gr.Accordion("More", open=False):
                    strip = gr.Checkbox(True, label="Show what other numbers of calls answer")
                    size = gr.Number(
                        label="Longer side seen, pixels", info="0: the area of training", value=0
                    )
                    kind = gr.Number(label="Class", info="-1: of no class", value=0, precision=0)
                    formats = gr.CheckboxGroup(label="Files of a picture")
                    fov = gr.Number(
                        label="Field of view, degrees", info="of points; 0: of the file", value=0
                    )
            with gr.Column(scale=3, min_width=320):
                shown = gr.HTML(render("demo_answer", words=NOTHING_YET), elem_id="answer")
        settings = [task, calls, members, budget, size, kind, fov, formats, strip]
        changed = [*pictures[1:], calls, members, kind, formats]

        def refitted(name: str) -> list[Any]:
            return _fitted(answerer, name)

        page.load(refitted, task, changed, **_PRIVATE)
        task.change(refitted, task, changed, **_PRIVATE)
        asking: dict[str, Any] = {"concurrency_id": "model", **_PRIVATE}
        for button in (predict, play):
            button.click(None, js=_SEEN)
        predict.click(_pictures(answerer), [*pictures, *settings], shown, **asking)
        play.click(_films(answerer), [film, *settings], shown, **asking)
        if worlds is not None:
            drawn.click(lambda: worlds.draw(randrange(len(worlds))), None, pictures, **_PRIVATE)
    return page


_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}


def _address(file: Path) -> str:
    """Of a file of an answer, from the page."""
    return f"gradio_api/file={quote(str(file))}"


# On a phone the answer stands below the settings.
_SEEN = "() => document.getElementById('answer').scrollIntoView({block: 'nearest'})"


def _drop(label: str) -> gr.Image:
    """Where a picture is dropped. It reaches the program as it is: whether it can be read is said
    in the program's own words."""
    dropped = gr.Image(
        type="filepath",
        image_mode=None,
        label=label,
        sources=["upload", "clipboard"],
        buttons=[],
        height=220,
        visible=label == "Picture",
        alt_text=label,
    )
    dropped.preprocess = lambda payload: payload and payload.path
    return dropped


def _fitted(answerer: Answerer, name: str) -> list[Any]:
    """What changes with the task: which pictures it reads, how the run answers it, its files."""
    task, usual = answerer.pipeline.task(name), answerer.pipeline.default_setting(name)
    reads = [gr.update(visible=field in task.required_inputs) for field in ("second", "modal")]
    sliders = [
        gr.update(value=value, maximum=max(most, value))
        for value, most in ((usual.nfe, MOST_CALLS), (usual.members, MOST_MEMBERS))
    ]
    formats = gr.update(choices=formats_of(task), value=["npy"])
    return [*reads, *sliders, gr.update(visible=generates(task)), formats]


def _question(
    settings: tuple[Any, ...],
    picture: Any = None,
    second: Any = None,
    mask: Any = None,
    film: Any = None,
) -> DemoQuestion:
    task, calls, members, budget, size, kind, fov, formats, strip = settings
    picture, second, mask, film = (file and Path(file) for file in (picture, second, mask, film))
    return DemoQuestion(
        task,
        picture,
        second,
        mask,
        film,
        class_id=None if kind is None or kind < 0 else int(kind),
        nfe=int(calls),
        members=int(members),
        budget=budget.strip(),
        size=int(size or 0),
        fov=fov,
        formats=tuple(formats),
        strip=strip,
    )


def _pictures(answerer: Answerer) -> Callable[..., Iterator[str]]:
    def answer(picture: Any, second: Any, mask: Any, *settings: Any) -> Iterator[str]:
        yield from _worded(answerer, _question(settings, picture, second, mask))

    return answer


def _films(answerer: Answerer) -> Callable[..., Iterator[str]]:
    def answer(film: Any, *settings: Any) -> Iterator[str]:
        yield from _worded(answerer, _question(settings, film=film))

    return answer


def _worded(answerer: Answerer, question: DemoQuestion) -> Iterator[str]:
    """The answer in HTML as it grows, or why there is none."""
    try:
        for answer in answerer.answers(question):
            yield render("demo_answer", words="", answer=answer, served=_address)
    except UserError as error:
        yield render("demo_answer", words=question.worded(error), wrong=True)
    except Exception:
        traceback.print_exc()
        yield render("demo_answer", words=FAULT, wrong=True)
