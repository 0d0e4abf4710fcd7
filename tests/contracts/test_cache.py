"""The contract of `penstock.cache.contract.Cache`, run on every implementation and every way it stores."""

import os
import random
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.artifacts import Digest, File, Link, Tree, digest_of_bytes
from penstock.cache.contract import BlobCorrupt, BlobError, BlobMissing, Cache, CaptureError, leaves
from penstock.cache.disk import DiskCache
from penstock.errors import EngineError, UntrustworthyError

TEXT = b"the same line again and again\n" * 2000
NOISE = random.Random(7).randbytes(3 << 20)  # noqa: S311 (no secret, and the same every time)
ABSENT = digest_of_bytes(b"never added")

MAKERS: dict[str, Callable[[Path], Cache]] = {
    "disk, compressed": lambda folder: DiskCache(folder, reflinks=False),
    "disk, plain": lambda folder: DiskCache(folder, reflinks=True),
    "disk, as found": DiskCache,
}


@pytest.fixture(params=list(MAKERS.values()), ids=list(MAKERS))
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Cache:
    made: Cache = request.param(tmp_path / "cache")
    return made


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def write(root: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def read(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and not p.is_symlink()}


# --- parts ---------------------------------------------------------------------------------------------------------


def test_a_part_of_large_content_is_shown(cache: Cache) -> None:
    """From any offset, up to its end; or not at all where it is compressed. What is absent is missing."""
    for data in (NOISE, TEXT):
        digest = cache.add_bytes(data)
        for offset, length in ((0, 10), (len(data) - 5, 100), (len(data), 5), (7, 0)):
            assert cache.peek(digest, offset, length) in {None, data[offset : offset + length]}
    assert cache.peek(cache.add_bytes(NOISE), 1, 2) == NOISE[1:3]
    with pytest.raises(BlobMissing):
        cache.peek(ABSENT, 0, 1)


# --- bytes and files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"a", b"x" * 4096, TEXT, NOISE, b"\x28\xb5\x2f\xfd" + TEXT], ids=len)
def test_what_is_added_is_read_again(cache: Cache, data: bytes) -> None:
    """Bytes of any size and kind come back as they were, those that begin like a zstd frame too."""
    digest = cache.add_bytes(data)
    assert digest == digest_of_bytes(data)
    assert cache.has(digest)
    assert cache.read(digest) == data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(data=st.binary(max_size=10_000), times=st.integers(1, 3))
def test_what_is_added_twice_is_held_once(cache: Cache, data: bytes, times: int) -> None:
    """Adding the same content again changes neither its digest nor the number of blobs."""
    first = cache.add_bytes(data)
    before = cache.usage()
    assert {cache.add_bytes(data) for _ in range(times)} == {first}
    assert cache.usage() == before


@pytest.mark.parametrize("data", [b"", TEXT, NOISE, TEXT * 40], ids=len)
def test_a_file_is_kept_with_its_size_and_mode(cache: Cache, work: Path, data: bytes) -> None:
    """A file gives digest, size and executable bit, whether it is small or comes in pieces."""
    (work / "a").write_bytes(data)
    assert cache.add_file(work / "a") == File(digest_of_bytes(data), len(data), executable=False)
    (work / "a").chmod(0o700)
    assert cache.add_file(work / "a") == File(digest_of_bytes(data), len(data), executable=True)
    assert cache.read(digest_of_bytes(data)) == data


def test_only_regular_files_are_added(cache: Cache, work: Path) -> None:
    """A missing file, a folder, a link and a fifo are refused in one sentence that names them, without waiting."""
    (work / "link").symlink_to("/etc/passwd")
    os.mkfifo(work / "fifo")
    for name in ("absent", ".", "link", "fifo"):
        with pytest.raises(CaptureError, match="kept") as caught:
            cache.add_file(work / name)
        assert str(work / name) in str(caught.value)


def test_a_missing_blob_names_its_digest(cache: Cache, work: Path) -> None:
    """Bytes that were never added are missing for every way to ask, and no file is left where one was wanted."""
    assert not cache.has(ABSENT)
    with pytest.raises(BlobMissing, match=ABSENT) as caught:
        cache.read(ABSENT)
    assert caught.value.digest == ABSENT
    with pytest.raises(BlobMissing):
        cache.tree(ABSENT)
    with pytest.raises(BlobMissing):
        cache.place(File(ABSENT, 3), work / "a")
    assert not list(work.iterdir())


def test_a_miss_and_damage_are_one_kind_of_error() -> None:
    """A caller that recomputes catches one class, and it counts as untrustworthy bytes elsewhere."""
    for error in (BlobMissing(ABSENT), BlobCorrupt(ABSENT, "model/a")):
        assert isinstance(error, BlobError)
        assert isinstance(error, UntrustworthyError)
    assert "'model/a'" in str(BlobCorrupt(ABSENT, "model/a"))


# --- placing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", TEXT, NOISE], ids=len)
@pytest.mark.parametrize("executable", [False, True])
def test_a_placed_file_is_its_owners_alone(cache: Cache, work: Path, data: bytes, *, executable: bool) -> None:
    """A placed file has the content and mode, is no hard link, and may be changed without harm to the cache."""
    (work / "source").write_bytes(data)
    (work / "source").chmod(0o755 if executable else 0o644)
    file = cache.add_file(work / "source")
    cache.place(file, work / "target")
    status = (work / "target").stat()
    assert (work / "target").read_bytes() == data
    assert status.st_nlink == 1
    assert bool(status.st_mode & stat.S_IXUSR) == executable
    assert status.st_mode & stat.S_IWUSR
    (work / "target").write_bytes(b"spoilt")
    (work / "source").write_bytes(b"spoilt")
    assert cache.read(file.digest) == data


def test_placing_replaces_a_link_and_leaves_its_target_alone(cache: Cache, work: Path) -> None:
    """A link where the file should be is replaced, never written through."""
    (work / "victim").write_bytes(b"safe")
    (work / "target").symlink_to("victim")
    cache.place(File(cache.add_bytes(TEXT), len(TEXT)), work / "target")
    assert (work / "victim").read_bytes() == b"safe"
    assert not (work / "target").is_symlink()


def test_a_file_that_cannot_be_placed_is_an_error_of_one_sentence(cache: Cache, work: Path) -> None:
    """Where a folder is in the way or the parent is missing, the error names the place."""
    file = File(cache.add_bytes(TEXT), len(TEXT))
    (work / "taken").mkdir()
    for target in (work / "taken", work / "absent" / "a"):
        with pytest.raises(EngineError, match="cannot be written") as caught:
            cache.place(file, target)
        assert str(target) in str(caught.value)


# --- trees ---------------------------------------------------------------------------------------------------------


def test_a_captured_folder_is_laid_out_as_it_was(cache: Cache, tmp_path: Path, work: Path) -> None:
    """Files, hidden ones, modes, links and odd names survive the way through the cache; the tree is itself kept."""
    files = {"model/a.bin": NOISE, "model/.hidden": b"h", "model/deep/er/b": b"", "model/é\n.txt": b"n", "c.txt": b"c"}
    write(work, files)
    (work / "c.txt").chmod(0o755)
    (work / "model/latest").symlink_to("deep/er/b")
    (work / "model/folder").symlink_to("deep")
    (work / "model/empty").mkdir()
    captured = cache.capture(work, ["model/", "c.txt"])
    assert not captured.missing
    tree = cache.tree(cache.add_tree(captured.tree))
    assert tree == captured.tree
    cache.lay_out(tree, tmp_path / "out" / "place")
    out = tmp_path / "out" / "place"
    assert read(out) == files
    assert os.access(out / "c.txt", os.X_OK)
    assert (out / "model/latest").readlink() == Path("deep/er/b")
    assert (out / "model/folder").readlink() == Path("deep")
    assert cache.capture(out, ["model", "*.txt"]).tree == tree


NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=5).filter(
    lambda name: name not in {".", ".."}
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(files=st.dictionaries(st.tuples(NAMES, NAMES).map("/".join), st.binary(max_size=20), max_size=6))
def test_any_names_and_contents_survive(
    cache: Cache, tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    """Whatever lies in a folder, capture and lay-out give it back."""
    work, out = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("out")
    write(work, files)
    cache.lay_out(cache.capture(work, ["."]).tree, out)
    assert read(out) == files


def test_names_that_are_not_utf8_survive(cache: Cache, tmp_path: Path, work: Path) -> None:
    """A file name of arbitrary bytes is captured, kept in a tree and laid out under the very same name."""
    odd = os.fsencode(work) + b"/\xff\xfe"
    Path(os.fsdecode(odd)).write_bytes(b"odd")
    tree = cache.tree(cache.add_tree(cache.capture(work, ["**"]).tree))
    cache.lay_out(tree, tmp_path / "out")
    assert [os.fsencode(path.name) for path in (tmp_path / "out").iterdir()] == [b"\xff\xfe"]


def test_patterns_that_name_nothing_are_reported(cache: Cache, work: Path) -> None:
    """Missing files, empty folders, patterns outside the root and below a file are named in their order."""
    write(work, {"a.txt": b"a", "data/x.csv": b"x"})
    (work / "empty").mkdir()
    patterns = ["a.txt", "b.txt", "empty/", "data/*.json", "../work/a.txt", "a.txt/below", "./data/", "**/*.csv"]
    captured = cache.capture(work, patterns)
    assert list(captured.tree) == ["a.txt", "data/x.csv"]
    assert captured.missing == ("b.txt", "empty/", "data/*.json", "../work/a.txt", "a.txt/below")


@pytest.mark.parametrize(
    ("path", "target"),
    [("l", "/etc/passwd"), ("l", ".."), ("a/l", "../../x"), ("l", "a/../../x"), ("l", "../work/a")],
)
def test_a_link_that_may_leave_is_refused(cache: Cache, work: Path, path: str, target: str) -> None:
    """An absolute link, or one that leads out of the folder, is named with its target; nothing is read through it."""
    (work / path).parent.mkdir(exist_ok=True)
    (work / path).symlink_to(target)
    with pytest.raises(CaptureError) as caught:
        cache.capture(work, ["**"])
    assert repr(path) in str(caught.value)
    assert repr(target) in str(caught.value)


def test_links_that_stay_are_trusted_only_if_no_other_link_can_turn_them() -> None:
    """Up first and down afterwards stays inside; down and up again might not, once the way down is a link."""
    assert not leaves("a/b/l", "../../x/y")
    assert not leaves("l", "./x//y")
    assert leaves("a/b/l", "../../../x")
    assert leaves("a/l", "b/../x")


def test_a_pattern_that_leads_through_a_link_is_refused(cache: Cache, tmp_path: Path, work: Path) -> None:
    """A linked folder is not entered, neither as the output itself nor on the way to it; named alone it is a link."""
    write(tmp_path / "elsewhere", {"secret": b"s"})
    write(work, {"real/a": b"a"})
    (work / "out").symlink_to(tmp_path / "elsewhere")
    (work / "model").symlink_to("real")
    for pattern in ("out/", "out/secret", "model/*"):
        with pytest.raises(CaptureError, match="links are not followed"):
            cache.capture(work, [pattern])
    assert cache.capture(work, ["model"]).tree.entries == {"model": Link("real")}


def test_sockets_and_fifos_are_refused_where_they_are_named(cache: Cache, work: Path) -> None:
    """A special file among the outputs is an error that names it; one that nobody asked for is none."""
    write(work, {"model/a": b"a"})
    os.mkfifo(work / "model/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(work / "socket"))
    for pattern, name in (("model/", "model/pipe"), ("socket", "socket")):
        with pytest.raises(CaptureError, match="socket, fifo or device") as caught:
            cache.capture(work, [pattern])
        assert repr(name) in str(caught.value)
    assert list(cache.capture(work, ["model/a"]).tree) == ["model/a"]


# --- laying out ----------------------------------------------------------------------------------------------------


def test_content_comes_from_elsewhere_where_the_cache_lacks_it(cache: Cache, work: Path) -> None:
    """Files whose digests only the other source knows are laid out from it, with their modes."""
    held, other = cache.add_bytes(b"held"), digest_of_bytes(b"other")
    tree = Tree({"held": File(held, 4), "bin/other": File(other, 5, executable=True)})
    cache.lay_out(tree, work, {other: b"other"}.__getitem__)
    assert read(work) == {"held": b"held", "bin/other": b"other"}
    assert os.access(work / "bin/other", os.X_OK)
    assert not cache.has(other)


def test_content_that_nobody_has_names_digest_and_path(cache: Cache, work: Path) -> None:
    """Where neither cache nor elsewhere knows the content, the error names both digest and path."""
    tree = Tree({"data/a.csv": File(ABSENT, 3)})
    nothing: dict[Digest, bytes] = {}
    for elsewhere in (None, nothing.__getitem__):
        with pytest.raises(BlobMissing) as caught:
            cache.lay_out(tree, work, elsewhere)
        assert ABSENT in str(caught.value)
        assert "'data/a.csv'" in str(caught.value)
        assert not read(work)


def test_content_from_elsewhere_is_verified(cache: Cache, work: Path) -> None:
    """Another source that gives other bytes is not believed, and its bytes are not written."""
    with pytest.raises(BlobCorrupt):
        cache.lay_out(Tree({"a": File(ABSENT, 3)}), work, lambda _: b"something else")
    assert not read(work)


def test_a_lay_out_can_be_repeated(cache: Cache, work: Path) -> None:
    """A second lay-out over a first one that was cut short or changed gives exactly the tree's content."""
    tree = Tree({"a/b": File(cache.add_bytes(TEXT), len(TEXT)), "l": Link("a/b")})
    cache.lay_out(tree, work)
    (work / "a/b").write_bytes(b"torn")
    (work / "l").unlink()
    (work / "l").write_bytes(b"in the way")
    cache.lay_out(tree, work)
    assert (work / "a/b").read_bytes() == TEXT
    assert (work / "l").readlink() == Path("a/b")


def test_nothing_is_laid_out_through_a_link(cache: Cache, tmp_path: Path, work: Path) -> None:
    """A link or file that stands in a folder's place is an error, and nothing is written beyond it."""
    tree = Tree({"data/sub/a": File(cache.add_bytes(b"a"), 1)})
    (tmp_path / "outside").mkdir()
    (work / "data").symlink_to(tmp_path / "outside")
    with pytest.raises(EngineError, match="where a folder is needed"):
        cache.lay_out(tree, work)
    (work / "data").unlink()
    (work / "data").write_bytes(b"a file")
    with pytest.raises(EngineError, match="where a folder is needed"):
        cache.lay_out(tree, work)
    assert not list((tmp_path / "outside").iterdir())


# --- use and sweeps ------------------------------------------------------------------------------------------------


def test_usage_counts_blobs_and_bytes(cache: Cache) -> None:
    """An empty cache uses nothing; two blobs are two, of some bytes."""
    assert (cache.usage().count, cache.usage().bytes) == (0, 0)
    cache.add_bytes(b"one")
    cache.add_bytes(NOISE)
    assert cache.usage().count == 2
    assert cache.usage().bytes >= len(NOISE)


def test_a_closure_holds_the_files_of_trees(cache: Cache) -> None:
    """A tree's digest brings its files; files, unknown digests and content that only looks like a tree add nothing."""
    held, lookalike = cache.add_bytes(b"held"), cache.add_bytes(b"tree\0 oak, ash")
    tree = cache.add_tree(Tree({"a": File(held, 4), "b": Link("a"), "c": File(ABSENT, 1)}))
    other = digest_of_bytes(b"unknown")
    assert cache.closure([tree, lookalike, other]) == {tree, held, ABSENT, lookalike, other}


def test_a_sweep_removes_what_is_neither_kept_nor_recent(cache: Cache) -> None:
    """Old blobs outside the kept set go and are counted; kept ones and recent ones stay."""
    kept, loose = cache.add_bytes(TEXT), cache.add_bytes(NOISE)
    now = time.time()
    assert cache.sweep({kept}, 3600, now).count == 0
    swept = cache.sweep({kept}, 3600, now + 3700)
    assert (swept.count, swept.bytes) == (1, len(NOISE))
    assert cache.read(kept) == TEXT
    assert not cache.has(loose)


@pytest.mark.parametrize("touch", [lambda c: c.add_bytes(TEXT), lambda c: c.has(digest_of_bytes(TEXT))])
def test_a_touch_protects_from_a_sweep(cache: Cache, tmp_path: Path, touch: Callable[[Cache], object]) -> None:
    """An old blob that is added again, or asked for, counts as new."""
    digest = cache.add_bytes(TEXT)
    for path in (tmp_path / "cache").rglob("*"):
        os.utime(path, (0, 0))
    touch(cache)
    assert cache.sweep((), 3600, time.time()).count == 0
    assert cache.has(digest)


def test_many_threads_add_read_and_sweep_at_once(cache: Cache, tmp_path: Path) -> None:
    """While threads add, place and sweep the same contents, what is read is right or missing, never wrong."""
    contents = [f"{i}".encode() * 3000 for i in range(20)]
    wrong: list[object] = []

    def churn(seed: int) -> None:
        order = random.Random(seed)  # noqa: S311
        for turn in range(60):
            data = order.choice(contents)
            digest = cache.add_bytes(data)
            try:
                if cache.read(digest) != data:
                    wrong.append(digest)
                cache.place(File(digest, len(data)), tmp_path / f"{seed}-{turn}")
                if (tmp_path / f"{seed}-{turn}").read_bytes() != data:
                    wrong.append(digest)
            except BlobMissing:
                pass
            except Exception as error:  # noqa: BLE001 (a thread must hand its error to the test)
                wrong.append(error)
            if turn % 10 == 0:
                cache.sweep((), 0, time.time())

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
