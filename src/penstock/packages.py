"""The package: model + code + locked dependencies + serve command, as one tree; and its lineage beside it.

The tree holds `files/` (what is served, at the repository's paths), `penstock.lock` where there is a runtime, and
`manifest.json`. Its digest covers exactly these; who made it, from what, and which gates it passed is lineage.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from penstock.artifacts import Digest, File, Tree
from penstock.errors import UntrustworthyError
from penstock.pipelines import Pipeline

FILES = "files/"
LOCK = "penstock.lock"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """How a package is served. `environment` is the digest of its runtime, `path` its folders of importable code.

    `image` says that the environment is an image. `base` is what the package stands on as an image of its own, where
    the file says so.
    """

    name: str
    serve: str | None
    health: str
    start_timeout: float
    python: str | None
    lock: str | None
    environment: str | None
    path: tuple[str, ...]
    model: tuple[str, ...]
    schema: int = 1
    image: bool = False
    base: str | None = None

    def encode(self) -> bytes:
        """The manifest's bytes; a package that has nothing to do with images has none of their keys."""
        values = {k: v for k, v in asdict(self).items() if v or k not in {"image", "base"}}
        return json.dumps(values, sort_keys=True, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """Raises UntrustworthyError for bytes that are no manifest."""
        try:
            values = json.loads(data)
            return cls(**{**values, "path": tuple(values["path"]), "model": tuple(values["model"])})
        except (ValueError, TypeError, KeyError) as error:
            raise UntrustworthyError("the package's manifest is damaged: build the version again") from error


def manifest_of(pipeline: Pipeline, lock: Digest | None, environment: Digest | None) -> Manifest:
    """How the pipeline's package is served, in the environment of its lock."""
    package, runtime = pipeline.package, pipeline.runtime
    if package is None:
        raise AssertionError("a pipeline without a package has no manifest")
    return Manifest(
        name=pipeline.name,
        serve=package.serve,
        health=package.health,
        start_timeout=package.start_timeout,
        python=runtime.python if runtime else None,
        lock=lock,
        environment=environment,
        path=runtime.path if runtime else (),
        model=package.model or (),
        image=runtime is not None and runtime.is_image,
        base=package.base,
    )


def assemble(files: Tree, manifest: File, lock: File | None) -> Tree:
    """The package's tree from the files that are served, the manifest and the lock."""
    entries = {FILES + path: entry for path, entry in files.entries.items()}
    entries[MANIFEST] = manifest
    if lock is not None:
        entries[LOCK] = lock
    return Tree(entries)


def served_files(package: Tree) -> Tree:
    """What the serving process finds in its folder."""
    return Tree({p.removeprefix(FILES): e for p, e in package.entries.items() if p.startswith(FILES)})


def lineage(
    *,
    commit: Mapping[str, Any],
    version: str,
    package: Tree,
    manifest: Manifest,
    inputs: Mapping[str, str],
    metrics: Mapping[str, float],
    hardware: Mapping[str, Any],
    variables: Mapping[str, str],
) -> dict[str, Any]:
    """Where a package comes from, as plain values: commit, inputs and outputs by digest, metrics, hardware.

    `inputs` are the digests of every step's input tree, by step, and of the state of outside data, by its address.
    """
    return {
        "schema": 1,
        "version": version,
        "commit": dict(commit),
        "package": package.digest,
        "files": {path: e.digest for path, e in package.entries.items() if isinstance(e, File)},
        "inputs": dict(inputs),
        "environment": manifest.environment,
        "lock": manifest.lock,
        "metrics": dict(metrics),
        "hardware": dict(hardware),
        "variables": dict(variables),
    }
