"""Config files of releases: filled in before anything starts, for their owner alone, and gone with the last replica."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.builders import DIGITS, House, step, steps
from penstock.artifacts import File, Tree
from penstock.engine.configuring import config_folder
from penstock.engine.contracts import Mount, ProcessSpec
from penstock.engine.delivery import Delivery
from penstock.engine.serving import in_image
from penstock.engine.sweeping import sweep
from penstock.packages import Manifest, assemble
from penstock.releases import ReleaseStatus
from penstock.store.contract import Release

APP = "level = ${{ variables.LEVEL }}\nname = ${{ version }} ${{ environment }} ${{ release }}\n"


def package(house: House, template: str, **fields: Any) -> str:
    """A package that holds a template."""
    manifest = Manifest("digits", "serve the model", "/health", 120.0, None, None, None, (), ())
    data, cache = manifest.encode(), house.world.cache
    files = Tree({"app.toml": File(cache.add_bytes(template.encode()), len(template))})
    return str(cache.add_tree(assemble(files, File(cache.add_bytes(data), len(data)), None)))


async def release(house: House, version: str, template: str = APP, **fields: Any) -> Release:
    config = [{"template": "app.toml", "to": "etc/app.toml", "as": "APP"}]
    made = {"config": config, "variables": {"LEVEL": "debug"}, **fields}
    return await house.deliver(house.wanted(version, package=package(house, template), **made))


def told(spec: ProcessSpec) -> Path:
    """The file that a process was told of, in both ways."""
    path = Path(spec.variables["APP"])
    assert path == Path(spec.variables["PENSTOCK_CONFIG"]) / "etc/app.toml"
    return path


def test_replicas_and_migrations_are_told_of_the_file(house: House) -> None:
    """It holds the release's own values, lies outside the package, and nobody else can read it."""

    async def story() -> None:
        migrate = {"run": "go up", "timeout": 60.0, "lock_timeout": 1.5, "contract": False, "down": None}
        found = await release(house, "0.1", migrate=migrate)
        first, second = house.machine.started
        path = told(second)
        assert told(first) == path
        assert path.read_text() == f"level = debug\nname = 0.1 production {found.id}\n"
        assert path.stat().st_mode & 0o777 == 0o600
        assert {p.stat().st_mode & 0o777 for p in list(path.parents)[:2]} == {0o700}
        assert second.workspace not in path.parents
        assert [p.name for p in path.parent.iterdir()] == ["app.toml"]

    house.play(story())


def test_a_template_that_names_nothing_leaves_the_old_release(house: House) -> None:
    """The new release is rejected with the template's line, and nothing of it was started or written."""

    async def story() -> None:
        await release(house, "0.1")
        found = await release(house, "0.2", "level = ${{ variables.LEVLE }}")
        assert found.status is ReleaseStatus.REJECTED
        assert found.reason == (
            'its config cannot be filled in: app.toml:1:9: "${{ variables.LEVLE }}" names nothing: '
            'did you mean "variables.LEVEL"?'
        )
        assert house.served() == "0.1"
        assert not config_folder(house.world, found.id).exists()

    house.play(story())


def test_a_template_that_the_package_lacks(house: House) -> None:
    """The release is rejected, and the sentence says where the template belongs."""

    async def story() -> None:
        found = await release(house, "0.1", config=[{"template": "b.toml", "to": "b.toml", "as": None}])
        assert found.reason == (
            "the template b.toml of its config cannot be read from the package (No such file or directory): "
            "add it to the package's code"
        )

    house.play(story())


def test_what_starts_again_is_filled_in_again(house: House) -> None:
    """After the machine went down the file holds what is true then; after a stop it is gone."""

    async def story() -> None:
        await release(house, "0.1")
        path = told(house.machine.started[0])
        path.write_text("something else")
        await house.machine.vanish()
        delivery = Delivery(house.world)
        await delivery.recover()
        assert path.read_text().startswith("level = debug")
        await delivery.stop(None, None)
        assert not path.exists()

    house.play(story())


def test_what_a_death_left_is_swept(house: House) -> None:
    """A config file that nothing uses any more goes with the next sweep; one of what serves stays."""

    async def story() -> None:
        ended = await release(house, "0.1")
        left = told(house.machine.started[0])
        await Delivery(house.world).stop(None, None)
        await release(house, "0.2")
        left.parent.mkdir(parents=True)
        left.write_text("a secret")
        await sweep(house.world, {})
        assert not config_folder(house.world, ended.id).exists()
        assert told(house.machine.started[-1]).exists()

    house.play(story())


def test_an_image_finds_the_files_at_the_same_place(tmp_path: Path) -> None:
    """Where the package's runtime is an image its container has the folder, and cannot write there."""
    home, config = tmp_path / "home", tmp_path / "config"
    spec = ProcessSpec("a", "serve", tmp_path, {"HOME": str(home)}, tmp_path / "log", tmp_path / "record")
    told = replace(spec, variables={**spec.variables, "PENSTOCK_CONFIG": str(config)})
    assert in_image(told, None) == told
    assert in_image(spec, "image").mounts == (Mount(home),)
    assert in_image(told, "image").mounts == (Mount(home), Mount(config, read_only=True))


def test_a_mistake_in_the_commit_is_told_before_anything_runs(house: House) -> None:
    """The check fails with the template's line and column, whichever environment names it."""
    environments = {"staging": {"port": 8801, "config": "src/app.toml"}}
    house.commit({**DIGITS, "environments": environments}, src__app__toml="x", src__a__py="")
    house.repo.commit(**{"src/app.toml": "\n= ${{ variables.EPOCS }}"})
    found = house.run()
    assert steps(found)["check"] == "failed"
    expected = 'src/app.toml:2:3: "${{ variables.EPOCS }}" names nothing: did you mean "variables.EPOCHS"?'
    assert step(found, "check").reason == expected
