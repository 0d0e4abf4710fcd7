"""The config files of a release: templates of its package, filled in beside it before anything of it starts."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from penstock.artifacts import Digest, File, Tree
from penstock.configs import MAX_TEMPLATE, mistakes, names_of, render
from penstock.engine.serving import CONFIG
from penstock.engine.world import World
from penstock.errors import EngineError
from penstock.pipelines import Pipeline
from penstock.store.contract import Release


class ConfigError(EngineError):
    """A config file that cannot be made; the release is rejected with this sentence."""

    exit_code = 1


def configure(world: World, release: Release, package: Path, secrets: Mapping[str, str]) -> dict[str, str]:
    """Fill in the config files of a release, whose package lies in a folder; the variables that tell of them.

    `secrets` are the values of the environment's secrets. Whatever starts anew has the files filled in anew, as its
    variables are. Each file appears whole, for its owner alone. Raises ConfigError, and writes nothing then.
    """
    wanted = release.spec.get("config", ())
    if not wanted:
        return {}
    values = _values(release, secrets)
    texts = {file["to"]: _filled(package / file["template"], file["template"], values) for file in wanted}
    folder = config_folder(world, release.id)
    for path, text in texts.items():
        _put(folder, folder / path, text.encode())
    world.crash("config.put:after_effect")
    return {CONFIG: str(folder), **{f["as"]: str(folder / f["to"]) for f in wanted if f.get("as")}}


def config_folder(world: World, release: int) -> Path:
    """Where the config files of a release lie."""
    return world.home.release(release) / "config"


def forget_configs(world: World, release: int) -> None:
    """Take the config files of a release away: nothing of it lives."""
    shutil.rmtree(config_folder(world, release), ignore_errors=True)


def _values(release: Release, secrets: Mapping[str, str]) -> dict[str, str]:
    return {
        "version": release.version,
        "commit": str(release.spec["commit"]),
        "environment": release.environment,
        "release": str(release.id),
        **{f"variables.{name}": value for name, value in release.spec["variables"].items()},
        **{f"secrets.{name}": value for name, value in secrets.items()},
    }


def _filled(path: Path, template: str, values: Mapping[str, str]) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEMPLATE + 1)
    except OSError as error:
        sentence = f"the template {template} of its config cannot be read from the package ({error.strerror})"
        raise ConfigError(f"{sentence}: add it to the package's code") from None
    found = mistakes(template, data, values.keys())
    if found:
        raise ConfigError(f"its config cannot be filled in: {'; '.join(found)}")
    return render(data.decode(), values)


def _put(top: Path, path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, for its owner alone, as are the folders up to `top`."""
    for folder in (top, *reversed([p for p in path.parents if top in p.parents])):
        folder.mkdir(exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    fresh.replace(path)


def config_mistakes(pipeline: Pipeline, tree: Tree, read: Callable[[Digest], bytes]) -> list[str]:
    """A sentence for each mistake of the templates that are files of the commit; what a step makes is seen later."""
    found: dict[str, None] = {}
    for environment in pipeline.environments.values():
        known = names_of(pipeline, environment)
        for file in environment.config:
            entry = tree.entries.get(file.template)
            if isinstance(entry, File):
                found.update(dict.fromkeys(mistakes(file.template, read(entry.digest), known)))
    return list(found)
