"""Weights & Biases, if asked for: a mirror of metrics.jsonl that can fail without harm."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from stepsight.config import RunConfig
from stepsight.training.folder import RunWriter

NAME = "wandb.txt"  # of a run folder: what wandb calls the run


class Tracker:
    """Repeats every line of metrics.jsonl to wandb; does nothing with training.tracker=none.

    `wandb-offline` never touches the network. `wandb` without a key, or without a network, goes on
    offline and says so: the local files are complete either way. A run that is continued here is
    continued there.
    """

    def __init__(self, config: RunConfig, run: RunWriter) -> None:
        self._run: Any = None
        if config.training.tracker == "none":
            return
        import wandb
        from wandb.errors import CommError

        offline = config.training.tracker == "wandb-offline" or not wandb.api.api_key
        options: dict[str, Any] = dict(
            project="stepsight",
            name=run.path.name,
            dir=str(run.path),
            config=config.to_dict(),
            id=_identity(run.path / NAME),
            resume="allow",
        )
        try:
            self._run = wandb.init(mode="offline" if offline else "online", **options)
        except CommError as error:
            print(f"wandb: {error}; recording offline")
            self._run = wandb.init(mode="offline", **options)
        run.listeners.append(self.log)

    def log(self, row: dict[str, Any]) -> None:
        """One line of metrics.jsonl, flattened."""
        kind, step = row["kind"], row["images_seen"]
        prefix = f"{kind}/{row['task']}" if "task" in row else kind
        flat = {f"{prefix}/{key}": value for key, value in row.items() if isinstance(value, float)}
        flat |= {f"{prefix}/{name}": value for name, value in row.get("metrics", {}).items()}
        self._run.log(json.loads(json.dumps(flat)) | {"images_seen": step})

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


def _identity(file: Path) -> str:
    """What wandb knows this run by, chosen when it first asks."""
    try:
        known = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        known = ""
    if not (known.isalnum() and len(known) <= 64):
        known = secrets.token_hex(8)
        file.write_text(known + "\n")
    return known
