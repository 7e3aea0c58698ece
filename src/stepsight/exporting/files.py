"""Files of graphs: written and opened, by torch (.pt2) or for ONNX runtimes (.onnx).

Both hold the same JSON text about the answer, in a file `stepsight.json` within the .pt2, and in
the metadata of the .onnx under "stepsight".
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from stepsight.errors import UserError
from stepsight.exporting.describing import described
from stepsight.exporting.graph import AnswerGraph

Format = Literal["torch", "onnx"]
SUFFIXES: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx"}
OUTPUTS = ("values", "uncertainty")
META = "stepsight"
WHOLE = 1 << 31  # bytes that a message of ONNX holds; larger weights lie in a file beside it
Run = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]


def recorded(answer: AnswerGraph) -> ExportedProgram:
    """The graph of an answer. Raises UserError where something in it cannot be recorded."""
    given = answer.example(answer.traced)
    shapes = None if answer.asked.size else {name: _any_size(answer, name) for name in given}
    with torch.no_grad(), _quiet(), _refused(answer):
        return torch.export.export(answer.eval(), (), given, dynamic_shapes=shapes)


def write(answer: AnswerGraph, path: Path, format: Format) -> Run:
    """Write the graph with what there is to know about it (`about`), and open the file again.

    Raises UserError where something cannot be recorded, or a package is missing.
    """
    text = json.dumps(described(answer))
    program = recorded(answer)
    with _quiet():
        if format == "torch":
            torch.export.save(program, path, extra_files={f"{META}.json": text})
            return opened(path)
        names = [*OUTPUTS[: len(program.graph_signature.user_outputs)]]
        with _refused(answer):
            made = torch.onnx.export(program, dynamo=True, verbose=False, output_names=names)
        assert made is not None, "only an export to a path returns nothing"
        made.model.metadata_props[META] = text
        weights = sum(value.nbytes for value in program.state_dict.values())
        made.save(path, external_data=weights > WHOLE)
    return opened(path)


def opened(path: Path) -> Run:
    """A file as a function of inputs by name, on the CPU. Raises UserError where a package is
    missing."""
    if path.suffix != SUFFIXES["onnx"]:
        module = torch.export.load(path).module()
        return torch.no_grad()(lambda given: module(**given))
    (runtime,) = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        found = session.run(None, {name: value.numpy() for name, value in given.items()})
        return tuple(map(torch.from_numpy, found))

    return run


def about(path: Path) -> dict[str, Any]:
    """What a file says of its answer."""
    if path.suffix != SUFFIXES["onnx"]:
        found = {f"{META}.json": ""}
        torch.export.load(path, extra_files=found)
        return json.loads(found[f"{META}.json"])
    (onnx,) = needed("onnx")
    model = onnx.load(path, load_external_data=False)
    return json.loads({entry.key: entry.value for entry in model.metadata_props}[META])


def _any_size(answer: AnswerGraph, name: str) -> dict[int, Any]:
    """Which sides of an input may be of which sizes."""
    cells = answer.stride // answer.pipeline.codec.downsample if name == "noise" else answer.stride
    first = 3 if name == "noise" else 2
    return {first + place: cells * Dim(side, min=2) for place, side in enumerate("hw")}


def needed(*packages: str) -> list[Any]:
    """Packages of the extra. Raises UserError for one that is not installed."""
    try:
        return [import_module(package) for package in packages]
    except ImportError as error:
        raise UserError(
            f"ONNX files need {error.name}: `uv sync --extra export`, or "
            "`pip install 'stepsight[export]'`. --format torch needs nothing more."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and onnxscript say of their own affairs: what is written is compared."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _refused(answer: AnswerGraph) -> Iterator[None]:
    """What torch cannot record, as an error for users: it says so in many ways."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"task {answer.task.name} of this checkpoint cannot be recorded as a graph ({reason}). "
            "--debug shows where; another --merge, --views or --profile may do without it."
        ) from error
