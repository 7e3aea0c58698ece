"""What an answer is guided away from (`diffusion.guidance`): that of the network without a label.

By default this is what training showed it where a label was hidden: the same pictures under the
null row. A network whose weights were trained otherwise has a method
`unconditional(encoded, label) -> (encoded, label)`, of what `encode` answered and the labels "b".
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from stepsight.coding import Layout
from stepsight.errors import UserError
from stepsight.tasks.base import Task
from stepsight.types import ModelInputs


def check_guidance(net: nn.Module, task: Task, guidance: float) -> None:
    """Raise UserError for a guidance away from an answer that the network does not have."""
    if guidance != 1 and not task.hidden_share and not hasattr(net, "unconditional"):
        raise UserError(
            f"diffusion.guidance: {guidance:g}, but task {task.name} was trained with its label "
            "alone, so that there is no answer without it. Set guidance 1; classes of task image "
            "are hidden in training by tasks.image.dropout."
        )


def with_null(
    coded: ModelInputs, net: nn.Module, task: Task, layout: Layout, guidance: float
) -> ModelInputs:
    """The encoded inputs of a task, for a guidance other than 1 with those of no label. Raises
    UserError as `check_guidance` does."""
    check_guidance(net, task, guidance)
    if guidance == 1:
        return coded
    if own := getattr(net, "unconditional", None):
        encoded, label = own(coded.encoded, coded.label)
    else:
        label = torch.full_like(coded.label, layout.labels)
        encoded = net.encode(coded.cond, label, coded.features)  # type: ignore[operator]
    return replace(coded, null=label, null_encoded=encoded)
