"""What is particular to the cache on disk: forms, damage, full disks, death of a writer, many processes."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.artifacts import Digest, File, Tree, digest_of_bytes
from penstock.cache.contract import BlobCorrupt, BlobMissing
from penstock.cache.disk import DiskCache
from penstock.errors import EngineError

TEXT = b"the same line again and again\n" * 2000
NOISE = random.Random(7).randbytes(200_000)  # noqa: S311 (no secret, and the same every time)
LARGE = random.Random(8).randbytes(8_000_000)  # noqa: S311 (as above)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> DiskCache:
    return DiskCache(folder, reflinks=False)


def blob(folder: Path, digest: Digest) -> Path:
    (found,) = (folder / "blobs" / digest[:2]).glob(f"{digest[2:]}*")
    return found


def spoil(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


# --- forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "packed"),
    [(b"", False), (b"x" * 4096, False), (b"x" * 4097, True), (TEXT, True), (NOISE, False), (TEXT * 40, True)],
    ids=["empty", "one block", "over a block", "text", "noise", "long text"],
)
def test_content_is_compressed_where_that_helps(
    cache: DiskCache, folder: Path, tmp_path: Path, data: bytes, *, packed: bool
) -> None:
    """Content that shrinks is stored as zstd, small or random content as it is, by either way of adding."""
    digest = cache.add_bytes(data)
    assert (blob(folder, digest).suffix == ".zst") == packed
    (tmp_path / "a").write_bytes(data)
    other = DiskCache(tmp_path / "other", reflinks=False)
    other.add_file(tmp_path / "a")
    assert (blob(tmp_path / "other", digest).suffix == ".zst") == packed
    assert other.read(digest) == data


def test_large_content_must_shrink_by_half(cache: DiskCache, folder: Path, tmp_path: Path) -> None:
    """Beyond 64 MiB a sample that shrinks by a third is not worth the time; below it is."""
    sample = b"".join(NOISE[i : i + 64] + bytes(32) for i in range(0, 150_000, 64))
    (tmp_path / "large").write_bytes(sample)
    with (tmp_path / "large").open("r+b") as file:
        file.truncate((64 << 20) + 1)
    assert blob(folder, cache.add_file(tmp_path / "large").digest).suffix == ""
    assert blob(folder, cache.add_bytes(sample)).suffix == ".zst"


def test_where_files_can_be_cloned_content_is_stored_as_it_is(folder: Path) -> None:
    """Only plain content can be cloned, so nothing is compressed there."""
    digest = DiskCache(folder, reflinks=True).add_bytes(TEXT)
    assert blob(folder, digest).read_bytes() == TEXT


def test_both_forms_are_read_whatever_the_folder_says_today(folder: Path) -> None:
    """A cache that moves between filesystems still reads what it stored before, and does not store it twice."""
    packed = DiskCache(folder, reflinks=False).add_bytes(TEXT)
    plain = DiskCache(folder, reflinks=True)
    assert plain.read(packed) == TEXT
    plain.add_bytes(TEXT)
    assert plain.usage().count == 1


def test_whether_files_can_be_cloned_is_found_out(folder: Path) -> None:
    """The filesystem is tried once, without leaving anything behind."""
    cache = DiskCache(folder)
    assert cache.reflinks in {True, False}
    assert not list((folder / "temp").iterdir())


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [TEXT, NOISE], ids=["compressed", "plain"])
@pytest.mark.parametrize("kind", ["cut", "empty", "flipped", "other", "folder"])
def test_damage_is_found_set_aside_and_then_a_miss(
    cache: DiskCache, folder: Path, tmp_path: Path, data: bytes, kind: str
) -> None:
    """Torn, changed or exchanged bytes are corrupt once, missing from then on, listed, and healed by adding again."""
    digest = cache.add_bytes(data)
    path = blob(folder, digest)
    stored = path.read_bytes()
    spoil(path, {"cut": stored[:-9], "flipped": stored[:40] + b"?" + stored[41:], "other": b"?"}.get(kind, b""))
    if kind == "folder":
        path.unlink()
        path.mkdir()
    with pytest.raises(BlobCorrupt, match=digest):
        cache.place(File(digest, len(data)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BlobMissing):
        cache.read(digest)
    assert cache.corrupted() == (digest,)
    assert not cache.has(digest)
    cache.add_bytes(data)
    assert cache.read(digest) == data


@pytest.mark.parametrize("data", [LARGE, b"".join(b"%d," % n for n in range(1_500_000))], ids=["plain", "packed"])
def test_damage_at_the_end_of_large_content_is_found(
    cache: DiskCache, folder: Path, tmp_path: Path, data: bytes
) -> None:
    """Content that is written by one thread while another verifies it leaves no file where its last byte is wrong."""
    (tmp_path / "in").write_bytes(data)
    file = cache.add_file(tmp_path / "in")
    cache.place(file, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    stored = blob(folder, file.digest).read_bytes()
    spoil(blob(folder, file.digest), stored[:-1] + bytes([stored[-1] ^ 1]))
    with pytest.raises(BlobCorrupt):
        cache.place(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_of_many_files_the_first_damaged_one_is_named(cache: DiskCache, folder: Path, tmp_path: Path) -> None:
    """Many files are laid out by several threads; what is wrong is told as if it were one, and no part of it lies."""
    contents = [b"%d" % n * 3000 for n in range(500)]
    digests = list(map(cache.add_bytes, contents))
    tree = Tree({f"d/{n:03}": File(digest, len(contents[n])) for n, digest in enumerate(digests)})
    cache.lay_out(tree, tmp_path / "whole")
    assert [(tmp_path / "whole" / path).read_bytes() for path in tree] == contents
    for wrong in (200, 300):
        spoil(blob(folder, digests[wrong]), b"?")
    with pytest.raises(BlobCorrupt, match=f"{digests[200]} of 'd/200'"):
        cache.lay_out(tree, tmp_path / "out")
    assert not (tmp_path / "out/d/200").exists()
    for path in (tmp_path / "out/d").iterdir():
        assert path.read_bytes() == contents[int(path.name)]


def test_damage_is_found_where_files_are_cloned_too(folder: Path, tmp_path: Path) -> None:
    """A clone is verified after it was made, and removed where it is wrong."""
    cache = DiskCache(folder, reflinks=True)
    digest = cache.add_bytes(TEXT)
    spoil(blob(folder, digest), b"?")
    with pytest.raises(BlobCorrupt):
        cache.place(File(digest, len(TEXT)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_laid_out_from_elsewhere(cache: DiskCache, folder: Path, tmp_path: Path) -> None:
    """Where another source knows the content, damage in the cache goes unnoticed but for its record."""
    digest = cache.add_bytes(TEXT)
    spoil(blob(folder, digest), b"?")
    cache.lay_out(Tree({"a": File(digest, len(TEXT))}), tmp_path / "out", {digest: TEXT}.__getitem__)
    assert (tmp_path / "out/a").read_bytes() == TEXT
    assert cache.corrupted() == (digest,)


def test_a_damaged_tree_adds_nothing_to_a_closure(cache: DiskCache, folder: Path) -> None:
    """A tree that cannot be read keeps no files, and a sweep goes on."""
    digest = cache.add_tree(Tree({str(i): File(digest_of_bytes(b"%d" % i), 1) for i in range(1000)}))
    spoil(blob(folder, digest), b"tree\0[]")
    assert cache.closure([digest]) == {digest}


def test_what_was_set_aside_goes_with_a_later_sweep(cache: DiskCache, folder: Path) -> None:
    """Damaged bytes are kept for a look, and not for ever."""
    digest = cache.add_bytes(TEXT)
    spoil(blob(folder, digest), b"?")
    with pytest.raises(BlobCorrupt):
        cache.read(digest)
    assert cache.sweep((), 3600, time.time()).count == 0
    assert cache.sweep((), 3600, time.time() + 3700).count == 1
    assert cache.corrupted() == ()


# --- the disk ------------------------------------------------------------------------------------------------------


@contextmanager
def no_file_over(size: int) -> Generator[None]:
    """While inside, the kernel takes no more than so many bytes of a file, as a disk does that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_is_cut_short_leaves_nothing(cache: DiskCache, folder: Path, tmp_path: Path) -> None:
    """Where the kernel takes only a part, the error is one sentence; no blob, leftover or placed file remains."""
    (tmp_path / "large").write_bytes(NOISE * 10)
    file = File(cache.add_bytes(NOISE), len(NOISE))
    before = cache.usage()
    with no_file_over(100_000):
        for attempt in (
            lambda: cache.add_bytes(NOISE[::-1]),
            lambda: cache.add_file(tmp_path / "large"),
            lambda: cache.place(file, tmp_path / "out"),
        ):
            with pytest.raises(EngineError, match=r"cannot be (used|written)"):
                attempt()
    assert cache.usage() == before
    assert not list((folder / "temp").iterdir())
    assert not (tmp_path / "out").exists()


def test_a_large_write_that_is_cut_short_leaves_nothing(cache: DiskCache, folder: Path, tmp_path: Path) -> None:
    """Where a thread of its own writes, its failure is the same sentence, and no file or leftover remains."""
    (tmp_path / "large").write_bytes(LARGE)
    file = cache.add_file(tmp_path / "large")
    with no_file_over(5_000_000):
        with pytest.raises(EngineError, match="cannot be written"):
            cache.place(file, tmp_path / "out")
        with pytest.raises(EngineError, match="cannot be used"):
            DiskCache(tmp_path / "other", reflinks=False).add_file(tmp_path / "large")
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "other/temp").iterdir())
    assert not list((folder / "temp").iterdir())


_FULL = """
import sys
from pathlib import Path
from penstock.cache.disk import DiskCache
from penstock.errors import EngineError
cache = DiskCache(Path(sys.argv[1]) / "cache", reflinks=False)
try:
    cache.add_bytes(open("/dev/urandom", "rb").read(3 << 20))
except EngineError as error:
    print(error)
print(cache.usage().count, len(list((Path(sys.argv[1]) / "cache/temp").iterdir())))
"""


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    """On a filesystem of 1 MiB, 3 MiB are refused with a sentence that says what to do, and nothing is left."""
    script = f'mount -t tmpfs -o size=1m none "{tmp_path}" && exec "{sys.executable}" -c "$1" "{tmp_path}"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", _FULL]
    if subprocess.run([*command[:4], "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this kernel gives no private mounts to ordinary users")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "the disk is full: free some space, or run penstock gc" in done.stdout
    assert done.stdout.splitlines()[1] == "0 0"


def test_a_folder_that_cannot_be_made_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    """A file where the cache should be is named."""
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(EngineError, match=r"the cache in .* cannot be used: not a directory"):
        DiskCache(tmp_path / "cache")


def test_blobs_are_written_by_nobody_once_named(cache: DiskCache, folder: Path) -> None:
    """Blobs are read-only files, so that a stray write fails."""
    assert blob(folder, cache.add_bytes(TEXT)).stat().st_mode & 0o222 == 0


# --- many processes ------------------------------------------------------------------------------------------------

_ADD = """
import random, sys, time
from pathlib import Path
from penstock.artifacts import File
from penstock.cache.contract import BlobMissing
from penstock.cache.disk import DiskCache
cache = DiskCache(Path(sys.argv[1]), reflinks=False)
order = random.Random(int(sys.argv[2]))
for turn in range(100):
    data = str(order.randrange(15)).encode() * 9000
    digest = cache.add_bytes(data)
    try:
        assert cache.read(digest) == data
    except BlobMissing:
        pass
    if turn % 10 == 0:
        cache.sweep((), 0, time.time())
"""


def test_many_processes_add_and_sweep_at_once(cache: DiskCache, folder: Path) -> None:
    """Processes that add, read and sweep the same contents disturb each other's work in nothing."""
    processes = [subprocess.Popen([sys.executable, "-c", _ADD, str(folder), str(seed)]) for seed in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert not cache.corrupted()
    assert not list((folder / "temp").iterdir())


_DIE = """
import os, signal, sys
from pathlib import Path
from penstock.cache.disk import DiskCache
cache = DiskCache(Path(sys.argv[1]), reflinks=False)
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
cache.add_bytes(b"died before it had its name" * 1000)
"""


def test_a_killed_writer_leaves_a_leftover_that_a_sweep_removes(cache: DiskCache, folder: Path) -> None:
    """After kill -9 in the middle of an add there is no blob; the leftover goes once nobody can be writing it."""
    done = subprocess.run([sys.executable, "-c", _DIE, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert cache.usage().count == 0
    assert len(list((folder / "temp").iterdir())) == 1
    assert cache.sweep((), 0, time.time()).count == 0
    assert cache.sweep((), 0, time.time() + 3700).count == 1
    assert not list((folder / "temp").iterdir())


def test_a_blob_that_is_touched_while_a_sweep_looks_stays(
    cache: DiskCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If somebody adds the content again after the sweep found it old, the sweep puts it back."""
    digest = cache.add_bytes(TEXT)
    os.utime(blob(folder, digest), (0, 0))
    rename = os.rename

    def touch_then_rename(old: str, new: str) -> None:
        cache.add_bytes(TEXT)
        rename(old, new)

    monkeypatch.setattr(os, "rename", touch_then_rename)
    assert cache.sweep((), 3600, time.time()).count == 0
    assert cache.read(digest) == TEXT
