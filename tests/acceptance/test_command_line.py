"""No words that a person can type end in a traceback: every verb with odd words, in process, and odd surroundings."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from acceptance.tiny import Command, Tiny, end, make
from penstock.cli.main import VERBS, execute
from penstock.engine.followers import CoordinatorLock
from penstock.engine.world import Home

CODES = {0, 1, 2, 3, 4, 130}
CLOSED = "CLOSED"
"""Stands for a port on which nothing listens."""

ODD = (
    "",
    " ",
    ".",
    "..",
    "/",
    "../..",
    "-",
    "--",
    "-1",
    "0",
    "1",
    "--nope",
    "--help=x",
    "@/etc/passwd",
    "~",
    "~nobody",
    "*",
    "$(exit 1)",
    "; exit 1",
    "a\nb\r\x1b[31m\x07",
    "\x01\x7f\u200e\ufeff",
    "penstöck-水門-🌊",
    "\udcff\udc80",
    "x" * 5_000,
    "x/" * 3_000,
    "99999999999999999999",
    "9223372036854775808",
    "-99999999999999999999",
    "1e400",
    "nan",
    "0x10",
    "१२",
    "HEAD",
    "HEAD~1",
    "refs/heads/main",
    "main:train.py",
    ":/",
    "@{-1}",
    "a..b",
    "^main",
    "ext::sh -c exit",
    "--upload-pack=x",
    "-oProxyCommand=x",
    "file:///",
    "file:///etc/passwd",
    "git@:x",
    "ssh://-oProxyCommand=x/y",
    "http://",
    "http://[::1",
    "http://u:p@127.0.0.1:CLOSED/x.git",
    "https://127.0.0.1:CLOSED/x.git",
    "git://127.0.0.1:CLOSED/x",
    "ssh://127.0.0.1:CLOSED/x",
    "/dev/null",
    "/dev/full",
    "/proc/self/mem",
    "/proc/self/environ",
    "penstock.yaml",
    "train.py",
    "train",
    "production",
    "0.0.0",
    "@",
    "v@d",
)
"""What nobody should type, and somebody will."""

OPTIONS = (
    "--file",
    "-f",
    "--ref",
    "--worktree",
    "--step",
    "--to",
    "--no-deploy",
    "--no-cache",
    "--json",
    "--limit",
    "-n",
    "--project",
    "--days",
    "--force",
    "--schema",
    "--follow",
    "--keep",
    "--version",
    "--help",
)
NAMES = tuple(name for name, _ in VERBS if name != "demo")  # plays for minutes, and takes no words


@dataclass(frozen=True, slots=True)
class Place:
    """Where to call from: an empty folder, or a repository that is a project; and the home that both use."""

    empty: Path
    tiny: Tiny
    closed: int


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One home for all calls; they are refused, or look. At its end nothing runs.

    Somebody serves it already: else a call of `serve` that makes sense (`serve --`) would stay for good.
    """
    folder = tmp_path_factory.mktemp("command line")
    (folder / "empty").mkdir()
    tiny = make(folder)
    tiny("run", "--no-deploy")
    with socket.socket() as unused, pytest.MonkeyPatch.context() as patch:
        unused.bind(("127.0.0.1", 0))
        for name in tuple(os.environ):
            if name.startswith(("GIT_", "PENSTOCK_")):
                patch.delenv(name)
        for name, value in tiny.command.environment.items():
            patch.setenv(name, value)
        serving = CoordinatorLock(Home(Path(os.environ["PENSTOCK_HOME"])).serve_lock)
        assert serving.acquire()
        yield Place(folder / "empty", tiny, unused.getsockname()[1])
        serving.release()
    end(tiny.command, folder)


@pytest.fixture(params=["empty", "tiny"])
def here(request: pytest.FixtureRequest, place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty, or the project's."""
    folder = place.empty if request.param == "empty" else place.tiny.repo.folder
    monkeypatch.chdir(folder)
    return folder


def _fault(code: int, out: str, err: str) -> str | None:
    """What is wrong with how a call ended: it must keep to the documented exit codes, and say what was wrong."""
    faults = {
        f"exit code {code}": code not in CODES,
        f"a traceback: {err}": "Traceback" in err or "Exception ignored" in err,
        f"a defect: {err}": "defect of Penstock" in out + err,
        f"exit code {code} without a sentence": code in {2, 3} and not err.strip(),
        f"what a terminal obeys: {err!r}": "\x1b" in err,
    }
    return next((fault for fault, present in faults.items() if present), None)


@dataclass(frozen=True, slots=True)
class Call:
    """The command line, in process. `faults` are the calls that ended otherwise than any call may end."""

    closed: int
    capfd: pytest.CaptureFixture[str]
    faults: list[str] = field(default_factory=list)

    def __call__(self, *words: str) -> int:
        typed = [word.replace(CLOSED, str(self.closed)) for word in words]
        self.capfd.readouterr()
        code = execute(typed)
        fault = _fault(code, *self.capfd.readouterr())
        if fault is not None:
            self.faults.append(f"{typed}: {fault}")
        return code


@pytest.fixture
def call(place: Place, capfd: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """All faults of a test's calls are told together, at its end."""
    made = Call(place.closed, capfd)
    yield made
    assert made.faults == []


@pytest.mark.parametrize("verb", NAMES)
def test_no_odd_word_ends_in_a_traceback(verb: str, here: Path, call: Call) -> None:
    """Every verb with each odd word: alone, before and after a fair one."""
    for odd in ODD:
        careful = ["--no-deploy"] if verb == "run" else []
        if verb == "init" and os.path.isdir(odd):  # noqa: PTH112 (a word may be too long for a Path)
            continue  # it would do as it is told, in folders that are none of ours
        call(verb, *careful, odd)
        if verb in {"deploy", "logs", "explain"} and here.name != "empty":
            call(verb, odd, "train")
            call(verb, "1", odd)


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--file"),
        ("plan", "--ref"),
        ("run", "--no-deploy", "--ref"),
        ("run", "--no-deploy", "--file"),
        ("run", "--no-deploy", "--step"),
        ("run", "--no-deploy", "--to"),
        ("check", "--file"),
        ("runs", "--limit"),
        ("runs", "--project"),
        ("gc", "--days"),
        ("stop", "nowhere", "--project"),
        ("lineage", "0", "--project"),
    ],
    ids=" ".join,
)
def test_no_odd_value_of_an_option_ends_in_a_traceback(words: tuple[str, ...], here: Path, call: Call) -> None:
    """Every option that takes a value, with each odd word as its value."""
    for odd in ODD:
        call(*words, odd)


SAFE = tuple(name for name in NAMES if name not in {"run", "init"})
WORDS = st.one_of(
    st.sampled_from(ODD), st.sampled_from(OPTIONS), st.text(st.characters(exclude_characters="\0"), max_size=30)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(verb=st.sampled_from(SAFE), words=st.lists(WORDS, max_size=4))
@example(verb="lineage", words=["0", "--project", ""])
def test_any_words_after_a_verb(
    verb: str, words: list[str], place: Place, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any list of words, options among them, in the project's folder."""
    monkeypatch.chdir(place.tiny.repo.folder)
    call(verb, *words)
    assert call.faults == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(WORDS, max_size=3))
def test_any_words_without_a_verb(words: list[str], call: Call) -> None:
    """Words that may not even begin with a verb: exit code 0 for help and version, else 2."""
    assert call(*words) in {0, 2}
    assert call.faults == []


# --- odd surroundings


def _homes(folder: Path) -> dict[str, str]:
    (folder / "file").write_text("x")
    (folder / "torn").mkdir()
    (folder / "torn" / "penstock.db").write_bytes(b"this is no database " * 300)
    (folder / "later").mkdir()
    (folder / "later" / "cache").write_text("x")
    (folder / "lock").mkdir()
    (folder / "lock" / "coordinator.lock").mkdir()
    (folder / "poke").mkdir()
    (folder / "poke" / "poke").write_text("x")
    return {
        "empty text": "",
        "spaces": "  ",
        "a file": str(folder / "file"),
        "below a file": str(folder / "file" / "home"),
        "a device": "/dev/null",
        "read-only": "/proc/penstock",
        "too long": str(folder / ("x" * 300)),
        "no database": str(folder / "torn"),
        "a file for a folder": str(folder / "later"),
        "a folder for the lock": str(folder / "lock"),
        "a file for the pipe": str(folder / "poke"),
        "relative": "some/where",
        "unicode": str(folder / "wörk 水 🌊"),
        "not unicode": str(folder / "\udcff\udc80"),
        "a tilde": "~/x",
        "percent and question": str(folder / "a%20?b#c&d=e"),
    }


HOMES = (
    "empty text",
    "spaces",
    "a file",
    "below a file",
    "a device",
    "read-only",
    "too long",
    "no database",
    "a file for a folder",
    "a folder for the lock",
    "a file for the pipe",
    "relative",
    "unicode",
    "not unicode",
    "a tilde",
    "percent and question",
)


@pytest.mark.parametrize("home", HOMES)
def test_a_home_that_cannot_be_used_is_one_sentence(
    home: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """PENSTOCK_HOME as it should not be, or is seldom: refused in one sentence, or used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HOME", _homes(tmp_path)[home])
    for words in (
        ["runs"],
        ["status"],
        ["gc"],
        ["doctor"],
        ["stop"],
        ["run", "--no-deploy", str(place.tiny.repo.folder)],
    ):
        call(*words)


def test_a_folder_that_is_gone_is_one_sentence(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """Every verb in a current folder that somebody removed."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for verb in NAMES:
        call(verb)
        call(verb, "1", "train")


def test_a_folder_that_cannot_be_read_is_one_sentence(
    place: Place, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without permissions (root reads it all the same), a repository without objects, a file as repository."""
    closed, hollow = tmp_path / "closed", tmp_path / "hollow"
    shutil.copytree(place.tiny.repo.folder, closed)
    shutil.copytree(place.tiny.repo.folder, hollow)
    shutil.rmtree(hollow / ".git" / "objects")
    monkeypatch.chdir(tmp_path)
    closed.chmod(0)
    try:
        for folder in (closed, hollow, hollow / "train.py"):
            for words in (["run", "--no-deploy"], ["plan"], ["check"], ["init"]):
                call(*words, str(folder))
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"\x00" * 100, b"[" * 5000, b"name: [", b"a: &a [*a]"])
def test_an_odd_pipeline_file_is_one_sentence(
    content: bytes, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """Bytes that are no pipeline, for each verb that reads the file: exit code 2."""
    place.tiny.repo.clone(tmp_path / "clone")
    monkeypatch.chdir(tmp_path / "clone")
    Path("penstock.yaml").write_bytes(content)
    for words in (["check"], ["plan", "--worktree"], ["run", "--worktree"]):
        assert call(*words) == 2


@pytest.mark.parametrize(
    "words", [("runs",), ("runs", "--json"), ("--help",), ("check", "--schema"), ("logs", "1")], ids=" ".join
)
@pytest.mark.parametrize("output", ["full", "closed pipe", "closed"])
def test_an_output_that_takes_nothing(words: tuple[str, ...], output: str, place: Place) -> None:
    """A stdout on a full disk, on a pipe that nobody reads, or not there: no traceback, documented exit codes."""
    command: Command = place.tiny.command
    shell = {"full": '"$@" >/dev/full', "closed pipe": '"$@" | true', "closed": '"$@" >&-'}[output]
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command.argv(*words)],
        cwd=place.tiny.repo.folder,
        env=dict(command.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert _fault(done.returncode, done.stdout, done.stderr) is None
