"""Parts of a file, however large or damaged it is."""

import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import readers
from penstock.readers import Archive, BytesReader, Cursor, DamagedError
from pure.model_files import zipped


class Endless:
    """A file of terabytes that says which of its bytes were asked for."""

    size = 1 << 42

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        return bytes(length)


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 60)), window=st.integers(1, 50))
@settings(deadline=None)
def test_a_cursor_gives_the_bytes_in_order(data: bytes, cuts: list[int], window: int) -> None:
    """Taken or passed over, every byte is where it was, whatever the window."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "WINDOW", window)
        cursor = Cursor(BytesReader(data))
        for n, cut in enumerate(cuts):
            before = cursor.position
            if cut > cursor.left:
                with pytest.raises(DamagedError, match="cut short"):
                    (cursor.take if n % 2 else cursor.skip)(cut)
                assert cursor.position == before
            elif n % 2:
                assert cursor.take(cut) == data[before : before + cut]
            else:
                cursor.skip(cut)
                assert cursor.position == before + cut


@given(lines=st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line)), window=st.integers(41, 60))
@settings(deadline=None)
def test_lines_are_read_whole(lines: list[bytes], window: int) -> None:
    """Each as it was written, without its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "WINDOW", window)
        cursor = Cursor(BytesReader(b"".join(line + b"\n" for line in lines)))
        assert [cursor.line() for _ in lines] == lines
        before = cursor.position
        with pytest.raises(DamagedError, match="does not end"):
            cursor.line()
        assert cursor.position == before


def test_little_of_a_large_file_is_read() -> None:
    """A window at a time, where the cursor stands."""
    file = Endless()
    cursor = Cursor(file)
    cursor.take(8)
    cursor.skip(1 << 41)
    cursor.number(4)
    assert file.asked == [(0, readers.WINDOW), ((1 << 41) + 8, readers.WINDOW)]


def test_what_is_too_much_is_refused() -> None:
    """A part that no reader should hold, and more parts than anyone should look at."""
    cursor = Cursor(Endless())
    with pytest.raises(DamagedError, match="too many to look at"):
        cursor.take(1 << 30)
    cursor.count(readers.MAX_ITEMS)
    with pytest.raises(DamagedError, match="more than 5,000,000 parts"):
        cursor.count()


def test_a_file_that_shrinks_while_it_is_read_is_cut_short() -> None:
    """Fewer bytes than its size promised."""

    class Shrunk(BytesReader):
        @property
        def size(self) -> int:
            return 100

    with pytest.raises(DamagedError, match="cut short"):
        Cursor(Shrunk(b"abc")).take(4)


def test_parts_of_a_file_share_what_was_counted() -> None:
    """A second look costs too, and sees no more than its part."""
    cursor = Cursor(BytesReader(b"0123456789"), 2, 8)
    cursor.count(5)
    part = cursor.at(4, 100)
    assert (part.left, part.take(2), part.budget.items) == (4, b"45", 5)
    part.count(2)
    assert cursor.budget.items == 7
    assert Cursor(BytesReader(b"\xff\xff")).number(2, signed=True) == -1


def test_members_of_an_archive_are_read_within_limits() -> None:
    """Whole up to a limit, or only the beginning."""
    archive = Archive(BytesReader(zipped({"a": b"x" * 100, "b": b"y"}, zipfile.ZIP_DEFLATED)))
    a, b = archive.members
    assert (archive.names, archive.content(b)) == (("a", "b"), b"y")
    assert archive.content(a, 10, whole=False) == b"x" * 10
    with pytest.raises(DamagedError, match="its a has more than 0 MiB, too many to look at"):
        archive.content(a, 99)


def test_members_of_an_archive_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs something, what is unpacked of it, and what is looked at in it; many small ones are too many too."""
    archive = Archive(BytesReader(zipped({"a": b"x" * 2560, "B": b""}, zipfile.ZIP_DEFLATED)))
    a, b = archive.members
    archive.cursor(a).count(5)
    archive.cursor(b).count(5)
    assert archive.budget.items == 2 * 100 + 10 + 10
    assert archive.ending("b", "c") == [b]
    monkeypatch.setattr(readers, "MAX_ITEMS", 300)
    with pytest.raises(DamagedError, match="more than 300 parts"):
        archive.content(b)


def test_archives_that_lie_are_refused() -> None:
    """Damaged directories and members, packings that nobody uses, directories without end: each is one clause."""
    good = zipped({"a": b"x" * 50})
    with pytest.raises(DamagedError, match="its zip directory cannot be read"):
        Archive(BytesReader(b"PK\x03\x04 no zip"))
    damaged = Archive(BytesReader(good.replace(b"x" * 50, b"x" * 49 + b"y")))
    with pytest.raises(DamagedError, match="its a cannot be read"):
        damaged.content(damaged.members[0])
    odd = Archive(BytesReader(zipped({"a": b"x"}, zipfile.ZIP_BZIP2)))
    with pytest.raises(DamagedError, match="its a is packed in an unusual way"):
        odd.content(odd.members[0])
    begin = good.index(b"PK\x05\x06")
    huge = good[:begin] + bytes(readers.MAX_DIRECTORY + 1) + good[begin:]
    place = huge.index(b"PK\x05\x06")
    end = huge[: place + 12] + struct.pack("<II", readers.MAX_DIRECTORY + 1, begin) + huge[place + 20 :]
    with pytest.raises(DamagedError, match="its directory is too large"):
        Archive(BytesReader(end))


@given(data=st.binary(max_size=200), cut=st.integers(0, 200))
@settings(deadline=None)
def test_no_archive_breaks_the_reader(data: bytes, cut: int) -> None:
    """Whatever is in it, it is read or refused."""
    good = zipped({"a": b"x" * 50})
    for content in (data, good[:cut] + data, data + good, good[:cut] + data + good[cut + len(data) :]):
        try:
            archive = Archive(BytesReader(content))
            for member in archive.members:
                archive.content(member)
        except DamagedError:
            continue
