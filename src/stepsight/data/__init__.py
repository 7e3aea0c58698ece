"""Procedural worlds, readers of real files, and the batches made of them.

`open(name, root, split=...)` is for those who want samples and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepsight.data.table import Source


def open(name: str, root: str | None = None, *, split: str = "all", **options: Any) -> Source:
    """The data set `name` under the folder `root`: indexable, yields `Sample`.

    options: those of its settings (`stepsight.data.config`). Raises `UserError` for unknown names,
    options and splits, missing files and wrong layouts; reading a damaged file raises
    `DataFormatError`, which names it.
    """
    from stepsight.data.table import open_source, settings_for

    if root is not None:
        options["root"] = str(root)
    return open_source(settings_for(name, **options), split)
