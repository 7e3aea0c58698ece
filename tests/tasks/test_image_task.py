"""Generation by class: what is conditioned on, what is shown, and what is scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stepsight.errors import UserError
from stepsight.seeding import generator
from stepsight.tasks.image import Image


def test_the_class_is_all_that_is_told(batch_of):
    condition = Image().condition(batch_of((8, 12)))
    assert condition.images.shape == (3, 0, 3, 8, 12) and condition.features is None
    assert Image(classes=10).label_count == 10


def test_a_class_the_task_does_not_have_is_refused(batch_of):
    batch = replace(batch_of((8, 12)), class_id=torch.tensor([0, 5, 1]))
    with pytest.raises(UserError, match="class 5 of key1, but tasks.image.classes is 5"):
        Image(classes=5).encode(batch)
    assert Image(classes=6).encode(batch).valid.all()


def test_the_first_member_is_shown_and_all_are_kept():
    members = 2 * torch.randn(3, 2, 3, 4, 5, generator=generator("pictures"))
    merged = Image().merge(members)
    assert torch.equal(merged.values, members[0].clamp(-1, 1))
    assert torch.equal(merged.x.reshape(2, 3, 3, 4, 5).movedim(1, 0), members)
    assert torch.equal(Image().decode(merged.x).values, merged.values)
    shown = members.clamp(-1, 1).numpy()
    assert merged.uncertainty is not None
    np.testing.assert_allclose(
        merged.uncertainty, shown.std(axis=0).mean(axis=1, keepdims=True), atol=1e-6
    )


def test_every_member_is_scored(batch_of):
    """With the real picture among the members, the score is better than without, but not 0."""
    task, batch = Image(), batch_of((16, 16))
    other = batch.image.flip(0) * 0.2
    alone = task.score(task.merge(other[None]), batch, "image-energy")["energy"]
    both = task.score(task.merge(torch.stack([other, batch.image])), batch, "image-energy")
    assert (both["energy"] < alone).all() and (both["energy"] > 0).all()


def test_the_mean_image_is_the_mean_of_the_training_images(batch_of):
    task, batch = Image(), batch_of((8, 12), rows=4)
    found = task.baselines(batch, task.statistics(batch))["mean_image"]
    torch.testing.assert_close(found.values[2], batch.image.mean(dim=0))
