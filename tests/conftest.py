"""What tests of several rooms need: the machine's container engine and an image."""

from collections.abc import Iterator

import pytest

import images
from penstock.engine.contracts import ContainerEngine
from penstock.runners.container import LABEL


@pytest.fixture(scope="session")
def container_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerEngine]:
    """Skips where there is none, or fails where CI=true. What tests left in it is removed at the end."""
    yield images.engine()
    listed = images.podman("ps", "--all", "--format", f'{{{{.ID}}}} {{{{index .Labels "{LABEL}"}}}}').stdout
    ours = f"@{tmp_path_factory.getbasetemp()}/"
    left = [line.split()[0] for line in listed.splitlines() if ours in line]
    if left:
        images.podman("rm", "--force", *left)


@pytest.fixture(scope="session")
def base_image() -> str:
    """An image with a shell and Python."""
    return images.base_image()
