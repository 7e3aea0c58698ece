"""What looking at a tree gives: samples, encodings with their evidence, and what remains open."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepsight.data.decoding.disk import writing
from stepsight.data.table import open_source, settings_for

LIST, CONFIG, LEGEND = "list.jsonl", "config.yaml", "legend.json"
TASKS = {  # the task that learns from a quantity
    "depth": "depth",
    "flow": "flow",
    "amodal": "amodal",
    "labels": "semantic",
    "normals": "normals",
}


@dataclass(frozen=True)
class Answers:
    """What the user says, in the words of `FolderSettings`; it overrides what files suggest."""

    depth_unit: str = ""
    invalid: tuple[float, ...] = ()
    mask_inside: str = ""
    classes: str = ""  # "1..", "cityscapes", a JSON legend, or a count
    flow_unit: str = ""


@dataclass
class Truth:
    """The files of a quantity, and how they are to be read."""

    files: int  # samples that have it
    of: int  # samples
    container: str  # suffix of the files
    encoding: dict[str, Any] = field(default_factory=dict)  # unit, inside, classes, ...
    invalid: tuple[float, ...] = ()
    evidence: list[str] = field(default_factory=list)  # sentences
    certain: bool = True

    def as_json(self) -> dict[str, Any]:
        known = {"invalid": list(self.invalid), "evidence": self.evidence, "certain": self.certain}
        return {"files": self.files, "of": self.of, "container": self.container} | (
            self.encoding | known
        )


@dataclass
class FoundTree:
    """A tree as the reader `folder` takes it. A truth whose meaning nobody can tell is in
    `problems` alone, and in none of the `samples`."""

    root: Path  # absolute
    samples: list[dict[str, str]] = field(default_factory=list)  # lines of the list
    pictures: int = 0
    truth: dict[str, Truth] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # of `FolderSettings`
    legend: list[dict[str, Any]] = field(default_factory=list)  # classes that files do not number
    problems: list[str] = field(default_factory=list)  # sentences
    notes: list[str] = field(default_factory=list)  # what was assumed, and is no fault
    written: list[Path] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """The tasks for which there is truth."""
        return [task for quantity, task in TASKS.items() if quantity in self.truth]

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(line["split"] for line in self.samples if "split" in line))

    def as_json(self) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "pictures": self.pictures,
            "samples": len(self.samples),
            "truth": {name: truth.as_json() for name, truth in self.truth.items()},
            "settings": self.options,
            "problems": self.problems,
            "notes": self.notes,
            "written": [str(path) for path in self.written],
        }

    def write(self, out: Path) -> dict[str, Any]:
        """Write the list, the legend if there is one, and the config into a folder; the settings of
        `folder` with absolute paths, so that they hold wherever they are used."""
        import yaml

        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            settings = {"root": str(self.root), "list": str((out / LIST).resolve())} | self.options
            if self.legend:
                settings["class_codes"] = str((out / LEGEND).resolve())
                self._write(out / LEGEND, json.dumps(self.legend, indent=1) + "\n")
            whole = [self._whole(line) for line in self.samples]  # for those who know no root
            lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in whole]
            self._write(out / LIST, "".join(lines))
            if self.tasks:
                config = {"tasks": self._set_up(settings), "data": {"folder": settings}}
                self._write(out / CONFIG, yaml.safe_dump(config, sort_keys=False))
        return settings

    def _set_up(self, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The tasks with the settings that only the files tell: how many classes there are."""
        tasks: dict[str, dict[str, Any]] = {task: {} for task in self.tasks}
        if "labels" in self.truth:
            source = open_source(settings_for("folder", **settings), "all", frozenset({"labels"}))
            tasks[TASKS["labels"]] = {"classes": len(source.classes)}
        return tasks

    def _whole(self, line: dict[str, str]) -> dict[str, str]:
        """A line of the list with absolute paths."""
        texts = ("key", "split")
        return {k: v if k in texts else str(self.root / v) for k, v in line.items()}

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        self.written.append(path)
