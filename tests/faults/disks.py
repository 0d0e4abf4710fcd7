"""Small disks that can be filled, and disks that break: a tmpfs, and an ext4 in a file on a tmpfs that runs full."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

MIB = 1 << 20


def _do(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode > 1:  # 1 is e2fsck's word for a file system that it has put right
        pytest.skip(f"{argv[0]} is refused on this machine: {done.stderr.strip()}")


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts disks")


@dataclass(frozen=True)
class Disk:
    """A mounted disk in memory."""

    folder: Path

    def fill(self) -> None:
        """Take every byte that is left."""
        with (self.folder / "filler").open("wb", buffering=0) as file:
            size = MIB
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.folder / "filler").unlink()

    def resize(self, size: int) -> None:
        _do("mount", "-o", f"remount,size={size}", str(self.folder))

    @property
    def left(self) -> int:
        return shutil.disk_usage(self.folder).free


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of so many bytes. Skips where it cannot be mounted."""
    needs_root()
    folder.mkdir()
    _do("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield Disk(folder)
    finally:
        _do("umount", "--lazy", str(folder))


@dataclass(frozen=True)
class Fragile:
    """A disk on a file for which there may be no room: then its writes fail with EIO, and it becomes read-only."""

    folder: Path
    under: Disk
    image: Path

    def break_(self) -> None:
        """From now on what is written is not taken."""
        self.under.fill()
        with (self.folder / "straw").open("wb") as straw:
            straw.write(os.urandom(8 * MIB))
        self.sync()

    def sync(self) -> None:
        """Have everything reach the disk, if that takes it."""
        subprocess.run(["sync", "-f", str(self.folder)], capture_output=True, check=False)

    def mend(self) -> None:
        """As after a repair and a reboot: the disk holds what had reached it."""
        self.under.free()
        self.unmount()
        _do("e2fsck", "-p", "-f", str(self.image))
        self.mount()

    def mount(self) -> None:
        _do("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.folder))

    def unmount(self) -> None:
        _do("umount", str(self.folder))


@contextmanager
def fragile_disk(folder: Path) -> Iterator[Fragile]:
    """A disk that can break. Skips where it cannot be made."""
    needs_root()
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4: install e2fsprogs")
    folder.mkdir()
    with small_disk(folder / "under", 80 * MIB) as under:
        disk = Fragile(folder / "disk", under, under.folder / "image")
        disk.folder.mkdir()
        _do("truncate", "--size", f"{160 * MIB}", str(disk.image))
        _do("mkfs.ext4", "-q", "-F", str(disk.image))
        disk.mount()
        try:
            yield disk
        finally:
            _do("umount", "--lazy", str(disk.folder))
