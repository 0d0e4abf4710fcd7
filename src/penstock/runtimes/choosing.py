"""All runtimes behind one contract: Python environments by uv, images by the container engine."""

from collections.abc import Callable, Collection, Mapping, Sequence

from penstock.artifacts import Digest
from penstock.engine.contracts import Command, RuntimeRequest
from penstock.runtimes.images import ImageRuntimes
from penstock.runtimes.uv import UvRuntimes


class ChosenRuntimes:
    """The `Runtimes` of `engine.contracts`: requests go by their kind, environments by what made them."""

    def __init__(self, uv: UvRuntimes, images: ImageRuntimes) -> None:
        self._uv = uv
        self._images = images

    def _of(self, request: RuntimeRequest) -> UvRuntimes | ImageRuntimes:
        return self._images if request.kind in {"image", "dockerfile"} else self._uv

    def files(
        self, request: RuntimeRequest, read: Callable[[str], bytes | None], paths: Collection[str] = ()
    ) -> Mapping[str, bytes]:
        """See the contract, and `UvRuntimes` or `ImageRuntimes` for the errors."""
        return self._of(request).files(request, read, paths)

    def key(self, request: RuntimeRequest, files: Mapping[str, bytes]) -> Digest:
        return self._of(request).key(request, files)

    def resolve(self, request: RuntimeRequest, files: Mapping[str, bytes]) -> Command:
        return self._of(request).resolve(request, files)

    def digest(self, request: RuntimeRequest, lock: bytes) -> Digest:
        return self._of(request).digest(request, lock)

    def build(self, request: RuntimeRequest, lock: bytes) -> Command | None:
        return self._of(request).build(request, lock)

    def discard(self, keep: Collection[Digest], before: float) -> int:
        """Each discards its own: uv's would take an image's environment for one that it left unfinished."""
        return self._images.discard(keep, before) + self._uv.discard({*keep, *self._images.environments()}, before)

    def variables(self, environment: Digest) -> Mapping[str, str]:
        if self._images.image(environment) is not None:
            return self._images.variables(environment)
        return self._uv.variables(environment)

    def image(self, environment: Digest) -> str | None:
        return self._images.image(environment)

    def check(self, python: str | None, strict: Sequence[str], lenient: Sequence[str]) -> Command:
        return self._uv.check(python, strict, lenient)

    def fingerprint(self, addresses: Sequence[str]) -> Command:
        return self._uv.fingerprint(addresses)
