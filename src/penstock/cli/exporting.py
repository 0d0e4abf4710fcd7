"""The verb `export`: a version as an OCI image, in a file or in the container engine."""

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.delivering import ProjectOption, find_package, project_here
from penstock.cli.settings import read_settings
from penstock.errors import EngineError

if TYPE_CHECKING:
    from penstock.engine.contracts import Command
    from penstock.engine.world import World
    from penstock.oci import Exported
    from penstock.packages import Manifest
    from penstock.runtimes.exporting import Exports, Image
    from penstock.store.contract import PackageRecord, Project


def export(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version that passed, or VERSION@DIGEST.")],
    *,
    oci: Annotated[
        str,
        typer.Option(
            "--oci",
            metavar="FILE|NAME",
            help="A file, if it ends with .tar or begins with /, ./, ../ or ~; else the name of an image.",
        ),
    ],
    base: Annotated[
        str | None, typer.Option("--base", metavar="IMAGE", help="The image below; default: python:X.Y-slim.")
    ] = None,
    project: ProjectOption = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one documented JSON object on stdout.")] = False,
) -> None:
    """Make an OCI image of a version: model, code, locked dependencies and serve command.

    Example: penstock export 0.1.0.dev4 --oci digits
    """
    from dataclasses import asdict

    from penstock.cli.wiring import open_world
    from penstock.runtimes.exporting import Exports, target_of

    settings = read_settings()
    with open_world(settings) as world:
        chosen = project_here(world, project)
        package = find_package(world, chosen, version)
        target = target_of(oci, package.version)
        exports = Exports(settings.home, settings.container_engine)
        image = exports.export(_exported(world, exports, chosen, package, base), target, _tell)
    if json_:
        typer.echo(json.dumps(asdict(image), indent=2))
        return
    _show(image)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _show(image: "Image") -> None:
    from penstock.cli.pictures import size

    new = sum(layer.size for layer in image.layers if layer.new)
    _tell(f"{size(image.size)} in {len(image.layers)} layers, {size(new)} of them new")
    typer.echo(f"{image.reference} {image.digest}")


def _exported(
    world: "World", exports: "Exports", project: "Project", package: "PackageRecord", base: str | None
) -> "Exported":
    """What the image is made of."""
    from penstock.artifacts import Digest
    from penstock.engine.serving import image_of, read_package
    from penstock.oci import base_of, exported_of
    from penstock.pipelines import Pipeline

    manifest = read_package(world, Digest(package.digest))
    python = _python(world, exports, Digest(package.digest), manifest)
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    plain = ".".join((manifest.python or own).split(".")[:2])
    return exported_of(
        manifest,
        package.digest,
        version=package.version,
        commit=package.lineage["commit"]["sha"],
        identity=project.identity,
        base=base or manifest.base or image_of(world, manifest) or base_of(python or plain),
        python=python,
        variables=Pipeline.model_validate(world.store.runs.get(package.run).pipeline).variables,
    )


def _python(world: "World", exports: "Exports", package: str, manifest: "Manifest") -> str | None:
    """The minor version of the Python that there are dependencies for; None where there are none, or all in an image.

    The environment of the dependencies is made where it is not there.
    """
    from penstock.artifacts import Digest
    from penstock.engine.serving import read_lock
    from penstock.runtimes.exporting import locked_request

    if manifest.environment is None or manifest.image:
        return None
    environment, lock = Digest(manifest.environment), read_lock(world, Digest(package)) or b""
    command = world.runtimes.build(locked_request(world.runtimes, environment, lock, manifest.python), lock)
    if command is not None:
        _place(command)
    return exports.minor(environment)


def _place(command: "Command") -> None:
    """Execute a command of a runtime, its output on stderr."""
    from penstock.engine.variables import passed_on

    environment = {**passed_on(read_settings().environment), **command.variables}
    done = subprocess.run(["sh", "-e", "-c", command.text], env=environment, stdout=sys.stderr.fileno(), check=False)
    if done.returncode != 0:
        raise EngineError("the environment of the package's dependencies cannot be made: what is above says why")
