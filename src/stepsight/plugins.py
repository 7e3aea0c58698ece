"""What other packages add: tasks, data sources, samplers and backbones, found by entry points.

A package names them in its pyproject.toml, e.g.

    [project.entry-points."stepsight.tasks"]
    matte = "matting.task:MatteSettings"
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from stepsight.errors import UserError

Group = Literal["tasks", "data", "samplers", "models"]


@cache
def plugins(group: Group) -> dict[str, Any]:
    """The objects that entry points of `stepsight.<group>` name, by name, in alphabetical order.

    Raises UserError naming the package whose entry point cannot be imported, and for a name that
    two packages use.
    """
    loaded: dict[str, Any] = {}
    for point in sorted(entry_points(group=f"stepsight.{group}"), key=lambda point: point.name):
        package = point.dist.name if point.dist else point.value
        if point.name in loaded:
            raise UserError(f"{package}: another package already adds '{point.name}' to {group}.")
        try:
            loaded[point.name] = point.load()
        except Exception as error:
            raise UserError(
                f"{package}: its entry point stepsight.{group} {point.name} = {point.value} cannot "
                f"be imported ({type(error).__name__}: {error}). Mend or uninstall the package."
            ) from error
    return loaded
