"""The truth in a batch."""

from __future__ import annotations

from torch import Tensor

from stepsight.errors import UserError
from stepsight.types import Batch


def require(who: str, batch: Batch, *names: str) -> tuple[Tensor, ...]:
    """The named fields of the batch. Raises UserError, naming the sources, if one is missing."""
    missing = [name for name in names if getattr(batch, name) is None]
    if missing:
        sources = ", ".join(sorted(set(batch.sources)))
        raise UserError(
            f"task {who} needs {' and '.join(missing)}, which {sources} does not have. "
            f"Choose another source for it, or leave it out."
        )
    return tuple(getattr(batch, name) for name in names)
