"""What tests of several rooms need: the machine's container engine and an image."""

import pytest

import images
from penstock.engine.contracts import ContainerEngine


@pytest.fixture(scope="session")
def container_engine() -> ContainerEngine:
    """Skips where there is none, or fails where CI=true."""
    return images.engine()


@pytest.fixture(scope="session")
def base_image() -> str:
    """An image with a shell and Python."""
    return images.base_image()
