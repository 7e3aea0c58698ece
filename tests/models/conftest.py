"""What the tests of the VAE codec share."""

from __future__ import annotations

import pytest
from autoencoders import KINDS


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    """Of an autoencoder that `autoencoders.make` makes."""
    return request.param
