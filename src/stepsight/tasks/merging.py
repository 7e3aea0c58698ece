"""Rules by which tasks merge members: which there are, and the same tasks under others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args, get_type_hints

from stepsight.errors import UserError, suggest
from stepsight.tasks.base import Task


def merge_rules(task: Task) -> tuple[str, ...]:
    """The rules a task merges members by, its default first; none where it has a single way."""
    return get_args(get_type_hints(type(task)).get("merge_by"))


def merging(tasks: Mapping[str, Task], rules: Mapping[str, str] | str) -> dict[str, Task]:
    """The tasks under other rules: `rules` by task, or one for all tasks that have it.

    Raises UserError for a task or a rule that is not there.
    """
    if isinstance(rules, str):
        rules = _everywhere(tasks, rules)
    changed = dict(tasks)
    for name, rule in rules.items():
        if name not in tasks:
            raise UserError(f"there is no task {name} to merge.{suggest(name, tasks)}")
        known = merge_rules(tasks[name])
        if rule not in known:
            raise UserError(f"task {name} does not merge by '{rule}'.{suggest(rule, known)}")
        changed[name] = replace(tasks[name], merge_by=rule)  # type: ignore[type-var]
    return changed


def _everywhere(tasks: Mapping[str, Task], rule: str) -> dict[str, str]:
    """The rule for each task that has it."""
    rules = {name: rule for name, task in tasks.items() if rule in merge_rules(task)}
    if not rules:
        known = {other for task in tasks.values() for other in merge_rules(task)}
        raise UserError(f"no task here merges by '{rule}'.{suggest(rule, known)}")
    return rules
