"""Bytes that went bad or missing are made again, or said to be missing; never served wrong (FAULTS 12, 13 in part)."""

import os
import shutil
from pathlib import Path

from faults.house import PRODUCTION, House, Project
from penstock.artifacts import digest_of_bytes


def blob(house: House, content: str) -> Path:
    """Where the cache keeps a content."""
    digest = digest_of_bytes(content.encode())
    return house.home / "cache" / "blobs" / digest[:2] / digest[2:]


def spoil(path: Path) -> None:
    """Flip every bit of a file that keeps its name, size and permissions."""
    data = bytes(byte ^ 255 for byte in path.read_bytes())
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o444)


def serves_only(project: Project, model: str) -> None:
    assert {project.serves()["model"] for _ in range(8)} == {model}


def honestly(house: House, project: Project, runs: int) -> None:
    """Run until it passes, at most so many times; a run before that is errored and names the damaged content."""
    for _ in range(runs - 1):
        command = house.start(project, "run")
        if command.wait() == 0:
            return
        command.ends(3)
        assert "was damaged in the cache" in command.said
    house.run(project)


def test_a_corrupt_output_is_made_again(house: House) -> None:
    """A step's output with flipped bits in the cache is not used: said and set aside, then made again."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    spoil(blob(house, "one"))
    project.repo.put("serve.py", (project.repo.folder / "serve.py").read_text() + "\n# another package\n")
    project.commit("one")
    honestly(house, project, 2)
    serves_only(project, "one")


def test_a_corrupt_output_serves_on(house: House) -> None:
    """A corrupt blob touches nothing that serves; the same commit again passes."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    spoil(blob(house, "one"))
    house.run(project)
    serves_only(project, "one")


def test_every_blob_corrupt(house: House) -> None:
    """With every byte of the cache flipped nothing wrong is served, and a new commit comes to production."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    for path in (house.home / "cache" / "blobs").rglob("*"):
        if path.is_file():
            spoil(path)
    project.commit("two")
    honestly(house, project, 4)
    serves_only(project, "two")
    house.do(project, "rollback", "production")
    serves_only(project, "one")


def test_the_cache_is_deleted(house: House) -> None:
    """Without its cache folder production serves on, and the next run makes everything again."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    shutil.rmtree(house.home / "cache")
    serves_only(project, "one")
    house.run(project)
    assert len(project.ledger("began", "make")) == 2
    serves_only(project, "one")


def test_the_cache_is_deleted_before_a_new_commit(house: House) -> None:
    """Without its cache folder a new commit still comes to production, and `rollback` goes back."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    shutil.rmtree(house.home / "cache")
    project.commit("two")
    house.run(project)
    serves_only(project, "two")
    house.do(project, "rollback", "production")
    serves_only(project, "one")


def test_work_folders_are_deleted(house: House) -> None:
    """Without the folders of past runs the next run passes, and the logs that are gone are said to be."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    shutil.rmtree(house.home / "runs")
    house.do(None, "logs", "1", "make")
    project.commit("two")
    house.run(project)
    serves_only(project, "two")


def test_the_sources_are_deleted(house: House) -> None:
    """Without the mirrors the next run fetches again."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    shutil.rmtree(house.home / "sources")
    project.commit("two")
    house.run(project)
    serves_only(project, "two")


def test_a_release_folder_is_deleted_and_its_servers_die(house: House) -> None:
    """A package folder that vanished under a release is laid out again by the next command."""
    project = house.project(environments=PRODUCTION)
    house.run(project)
    shutil.rmtree(house.home / "releases")
    for pid in house.processes():
        os.kill(pid, 9)
    house.run(project)
    serves_only(project, "one")
