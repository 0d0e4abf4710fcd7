"""How large the cache may be: as the person says, else a share of the disk."""

import shutil
from pathlib import Path

import pytest

from penstock.cli.settings import read_settings
from penstock.errors import UsageError


@pytest.mark.parametrize(
    ("said", "size"),
    [("20GiB", 20 << 30), ("500MB", 500_000_000), ("1.5 gib", 3 << 29), ("2TB", 2 * 10**12), (" 64KiB ", 64 << 10)],
)
def test_a_size_that_was_said_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, size: int) -> None:
    """Powers of 1024 and of 1000, with or without a space, in any case of letters."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_CACHE_SIZE", said)
    assert read_settings().cache_size == size


@pytest.mark.parametrize("said", ["", "20", "many", "-1GiB", "1GiB2", "GiB"])
def test_what_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """One sentence says what was found and what to write."""
    monkeypatch.setenv("PENSTOCK_CACHE_SIZE", said)
    with pytest.raises(UsageError, match="write a size such as 20GiB or 500MB"):
        read_settings()


def test_without_a_word_it_is_a_share_of_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tenth of the home's disk, but from 5 to 100 GiB; the home itself need not be there yet."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "not" / "yet"))
    monkeypatch.delenv("PENSTOCK_CACHE_SIZE", raising=False)
    share = shutil.disk_usage(tmp_path).total // 10
    assert read_settings().cache_size == min(max(share, 5 << 30), 100 << 30)
