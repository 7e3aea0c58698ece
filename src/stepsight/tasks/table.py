"""The tasks by name: from settings to the object that does the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module

from stepsight.errors import UserError, suggest
from stepsight.tasks.base import Task
from stepsight.tasks.config import TABLE, TaskSettings


def build_task(settings: TaskSettings) -> Task:
    """The task that `settings` describes."""
    module, _, name = settings.implementation.partition(":")
    return getattr(import_module(module), name)(**asdict(settings))


def build_tasks(settings: Mapping[str, TaskSettings]) -> dict[str, Task]:
    """Tasks by name, in the order of the run's table, which is the order of their label rows."""
    for name in settings:
        if name not in TABLE:
            raise UserError(f"tasks.{name} is unknown.{suggest(name, TABLE)}")
    return {name: build_task(one) for name, one in settings.items()}
