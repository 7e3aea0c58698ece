"""The same function over many items, by this process or by several, with the results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar

from torch.utils.data import DataLoader, Dataset

from stepsight.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 0,
    start: Literal["spawn"] | None = None,
) -> Iterator[Result]:
    """`function(item)` for every item, in order, computed by so many processes (0: by this one).

    start: how they are made; "spawn" where torch may have threads, which no fork survives. A
    `UserError` that `function` raises is raised here, as it was, when its turn comes. Raises
    `UserError` as well for an item whose files cannot be read, and for a process that was killed.
    """
    loader = DataLoader(
        _Mapped(function, items),
        batch_size=None,
        num_workers=workers,
        collate_fn=as_is,
        multiprocessing_context=start if workers else None,
    )
    for result in _served(loader):
        if isinstance(result, UserError):
            raise result
        yield result


def _served(loader: DataLoader[Any]) -> Iterator[Any]:
    results = iter(loader)
    while True:
        try:
            result = next(results)
        except StopIteration:
            return
        except RuntimeError as error:
            if not loader.num_workers or str(error).startswith("Caught"):  # a bug in an item
                raise
            reason = str(error).splitlines()[0]
            raise UserError(
                f"A worker process died, perhaps for want of memory: {reason} Run again with "
                f"fewer --workers."
            ) from error
        yield result


class _Mapped(Dataset, Generic[Item, Result]):
    """`function` as a dataset. Errors are values: torch would wrap them in a worker's traceback."""

    def __init__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self.function, self.items = function, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Result | UserError:
        try:
            return self.function(self.items[index])
        except UserError as error:
            return error
        except OSError as error:
            return UserError(f"item {index}: cannot be read or written ({error}).")


def as_is(result: Any) -> Any:
    """What a data loader collates, unchanged."""
    return result
