"""What a release stands on: its package's folder, its manifest, its variables; replicas and migrations share it."""

from collections.abc import Callable
from pathlib import Path

from penstock.artifacts import Digest
from penstock.engine.configuring import configure
from penstock.engine.serving import lay_out_package, read_package
from penstock.engine.variables import inside
from penstock.engine.world import World
from penstock.environments import RolloutRules
from penstock.packages import MANIFEST, Manifest
from penstock.store.contract import Release

Stopping = Callable[[], str | None]
"""Why a rollout is to end, or None while it may go on."""


class StoppedRollout(Exception):  # noqa: N818 (no fault: the rollout is left for `resume`)
    """The rollout was interrupted before the switch."""


def manifest_of(world: World, release: Release) -> Manifest:
    """The manifest of a release's package: as it was kept beside it, else from the cache."""
    kept = world.home.release(release.id) / MANIFEST
    if kept.exists():
        return Manifest.decode(kept.read_bytes())
    return read_package(world, Digest(release.package))


def rules_of(release: Release) -> RolloutRules | None:
    """What the file says of a release's rollout."""
    found = release.spec.get("rollout")
    return None if found is None else RolloutRules.model_validate(found)


def package_folder(world: World, release: Release) -> Path:
    """Where the files of a release's package lie."""
    return world.home.release(release.id) / "package"


def install(world: World, release: Release) -> None:
    """The package's files, and its manifest beside them: what serves does not need the cache any more."""
    folder = world.home.release(release.id)
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{MANIFEST}.new"
    fresh.write_bytes(manifest_of(world, release).encode())
    fresh.replace(folder / MANIFEST)
    lay_out_package(world, Digest(release.package), package_folder(world, release))


def variables_of(world: World, release: Release, manifest: Manifest, *, own_image: bool) -> dict[str, str]:
    """The environment of a process of a release, before its runtime; `own_image`: where it is an image of its own.

    Its HOME exists, and the release's config files lie there, filled in with the same values. Raises ConfigError.
    """
    home = world.home.person(release.project)
    home.mkdir(parents=True, exist_ok=True)
    person, secrets = release.spec["person"], tuple(release.spec.get("secrets", ()))
    places = {"HOME": str(home), "PENSTOCK_PACKAGE": str(package_folder(world, release))}
    values = world.secrets(release.project, secrets, release.environment)
    return {
        **(inside(person) if own_image or manifest.image else person),
        **({} if own_image else places),
        "PENSTOCK_ENVIRONMENT": release.environment,
        "PENSTOCK_VERSION": release.version,
        "PENSTOCK_RELEASE": str(release.id),
        **configure(world, release, package_folder(world, release), values),
        **release.spec["variables"],
        **values,
    }


def last_line(log: Path) -> str:
    """The last line of a log that says something, as the end of a sentence; one in brackets is an aside."""
    try:
        lines = log.read_bytes()[-4096:].decode(errors="replace")
    except OSError:
        return ""
    said = [line.strip() for line in lines.splitlines() if line.strip()]
    last = next((line for line in reversed(said) if line[0] + line[-1] not in {"()", "[]"}), "".join(said[-1:]))
    return f"; its log ends: {last[:200]}" if last else ""
