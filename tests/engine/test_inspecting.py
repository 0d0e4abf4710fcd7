"""What the model's files of a package are, read from a real cache."""

import pickle
from pathlib import Path

import pytest

from penstock.artifacts import Digest, File, Link, Tree, digest_of_bytes
from penstock.cache.contract import BlobMissing
from penstock.cache.disk import DiskCache
from penstock.engine import inspecting
from penstock.engine.inspecting import inspect_package
from penstock.models import Inspection
from pure.model_files import safetensors

CONTENT = {
    "files/model/w.safetensors": safetensors({"a": ("F32", [50_000], 200_000)}),
    "files/model/labels.txt": b"cat\ndog\n",
    "files/model/scaler.pkl": pickle.dumps([1.5] * 5_000),
    "files/src/serve.py": b"print()\n",
    "manifest.json": b"{}",
}


@pytest.fixture(params=[False, True], ids=["compressed", "plain"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "cache", reflinks=request.param)


def package(cache: DiskCache) -> Tree:
    entries: dict[str, File | Link] = {p: File(cache.add_bytes(d), len(d)) for p, d in CONTENT.items()}
    return Tree({**entries, "files/model/latest": Link("w.safetensors")})


@pytest.mark.parametrize("whole", [inspecting.WHOLE, 10])
def test_the_files_of_the_model_are_looked_at(
    cache: DiskCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    """In parts, in memory or from the disk, by how the cache holds them; code and links are not; nothing is left."""
    monkeypatch.setattr(inspecting, "WHOLE", whole)
    found = inspect_package(cache, package(cache), ("model/",), tmp_path / "place")
    sizes = {path: len(CONTENT[f"files/{path}"]) for path in found.files}
    assert found.files == {
        "model/labels.txt": Inspection("text", sizes["model/labels.txt"]),
        "model/scaler.pkl": Inspection("pickle", sizes["model/scaler.pkl"]),
        "model/w.safetensors": Inspection("safetensors", sizes["model/w.safetensors"], 50_000),
    }
    assert [*(tmp_path / "place").glob("*")] == []


def test_bytes_that_are_gone_are_told(cache: DiskCache, tmp_path: Path) -> None:
    """As everywhere, by who asks the cache."""
    gone = Tree({"files/model/w": File(Digest(digest_of_bytes(b"never added")), 5)})
    with pytest.raises(BlobMissing):
        inspect_package(cache, gone, ("model/",), tmp_path)
