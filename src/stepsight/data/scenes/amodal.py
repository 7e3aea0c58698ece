"""The object whose hidden part is asked for: which it is, its visible part, and all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stepsight.data.scenes.cast import Hits
from stepsight.data.scenes.parameters import SURFACES

SHARE = 0.003  # of the image: a chosen object shows at least so much ...
HIDDEN = (0.1, 0.9)  # ... and this fraction of it is hidden, if there is such an object


@dataclass
class Chosen:
    """An object of each scene, or none."""

    valid: Tensor  # bool "b", False where no object shows
    modal: Tensor  # bool "b h w"
    alone: Hits  # what the camera rays would meet without everything else
    hidden: Tensor  # float "b", fraction of the amodal mask that is not visible

    @property
    def amodal(self) -> Tensor:
        """bool "b h w"; what lies inside the image."""
        return self.alone.inverse > 0


def choose(hits: Hits) -> Chosen:
    """The largest partly hidden object, else the most visible; the lower slot on a tie."""
    scenes, height, width = hits.owner.shape
    whole, visible = _areas(hits)
    hidden = 1 - visible / np.maximum(whole, 1)
    fits = (visible >= SHARE * height * width) & (hidden >= HIDDEN[0]) & (hidden <= HIDDEN[1])
    merit = np.where(fits, height * width + whole, visible)
    row = merit.argmax(axis=1)
    valid = merit.max(axis=1) > 0
    owner = torch.from_numpy(row).to(hits.owner)[:, None, None].expand(hits.owner.shape)
    inverse = torch.zeros_like(hits.inverse)
    for group, entry in hits.entries:
        for scene, mine, reach in zip(group.scenes.tolist(), group.rows.tolist(), entry):
            if mine == row[scene]:
                inverse[scene] = reach.relu()
    shows = torch.from_numpy(valid).to(owner.device)
    modal = (hits.owner == owner) & shows[:, None, None]
    share = torch.from_numpy(np.where(valid, hidden[np.arange(scenes), row], 0))
    return Chosen(shows, modal, Hits(inverse, owner, []), share.to(owner))


def _areas(hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each object, in all and visible: "b s", zero for the faces of the room."""
    whole = np.zeros((len(hits.owner), SURFACES))
    visible = np.zeros_like(whole)
    for group, entry in hits.entries:
        at = group.scenes, group.rows
        rows = torch.from_numpy(group.rows).to(entry)[:, None, None]
        shown = (hits.owner[group.scenes] - rows).abs_().neg_().add_(1).relu_()
        whole[at] = entry.sign().relu_().sum((1, 2)).cpu().numpy()
        visible[at] = shown.sum((1, 2)).cpu().numpy()
    return whole, visible
