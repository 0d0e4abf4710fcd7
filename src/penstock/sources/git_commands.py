"""Running git: with the person's own settings and credentials, without prompts, hooks or surprises."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from penstock.commits import Address, Reach, hidden, printable
from penstock.errors import EngineError, SourceError

OLDEST = (2, 31)
"""The oldest git that understands all that is asked of it here (settings by environment)."""

_ALWAYS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.quotePath=false"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    *("-c", "protocol.version=2"),
    *("-c", "submodule.recurse=false"),
    *("-c", "i18n.logOutputEncoding=UTF-8"),
    *("-c", "log.showSignature=false"),
)

# What a surrounding git (a hook, an alias) or a debugging session may have left, and would redirect ours.
_DROPPED = frozenset(
    {
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_COMMON_DIR",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_QUARANTINE_PATH",
        "GIT_NAMESPACE",
        "GIT_PREFIX",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_SHALLOW_FILE",
        "GIT_GRAFT_FILE",
        "GIT_REPLACE_REF_BASE",
        "GIT_TEMPLATE_DIR",
        "GIT_EXTERNAL_DIFF",
        "GIT_DIFF_OPTS",
        "GIT_ALLOW_PROTOCOL",
        "GIT_PROTOCOL_FROM_USER",
        "GIT_LITERAL_PATHSPECS",
        "GIT_GLOB_PATHSPECS",
        "GIT_NOGLOB_PATHSPECS",
        "GIT_ICASE_PATHSPECS",
        "GIT_DEFAULT_HASH",
        "GIT_FLUSH",
        "LANGUAGE",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a git command printed, and its exit code."""

    code: int
    out: bytes
    complaint: str

    def lines(self) -> list[str]:
        """The lines of the output; no other character than the newline ends one."""
        return [line for line in self.out.decode("utf-8", "backslashreplace").split("\n") if line]


class Git:
    """Runs git by argument lists; `environment` is the person's whole environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # A relative entry would let a repository bring its own `git` or `ssh`.
        path = [p for p in environment.get("PATH", os.defpath).split(os.pathsep) if Path(p).is_absolute()]
        self._variables = _quiet(environment) | {"PATH": os.pathsep.join(path)}
        self._program = shutil.which("git", path=os.pathsep.join(path))
        self._checked = False

    def run(
        self,
        *arguments: str,
        folder: Path,
        codes: Sequence[int] | None = (0,),
        text: bytes | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run a command that uses no network. Raises SourceError where it ends with another code than `codes`."""
        try:
            done = subprocess.run(
                self._command(arguments),
                cwd=folder,
                env=self.variables(variables),
                input=b"" if text is None else text,
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise _unreadable(folder, error) from error
        answer = Answer(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))
        if codes is not None and answer.code not in codes:
            raise explain(answer.complaint, str(folder))
        return answer

    def reach(self, address: Address, *arguments: str, folder: Path) -> Answer:
        """Run a command that talks to a repository elsewhere; nothing in it can ask a question.

        It gets a session of its own: without a terminal, neither ssh nor a credential helper can prompt.
        Raises SourceError where it fails.
        """
        command = self._command(arguments)
        variables = self.variables(self._reaching(address, folder))
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as complaints:
            code = _run_alone(command, folder, variables, out, complaints)
            out.seek(0)
            complaints.seek(0)
            answer = Answer(code, out.read(), complaints.read().decode("utf-8", "replace"))
        if code:
            raise explain(answer.complaint, address.url, afar=address.reach is not Reach.FOLDER)
        return answer

    def stream(self, *arguments: str, folder: Path, source: IO[bytes] | int) -> "subprocess.Popen[bytes]":
        """Start a command that reads `source` and whose output the caller reads; the caller ends it."""
        try:
            return subprocess.Popen(
                self._command(arguments),
                cwd=folder,
                env=self._variables,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise _unreadable(folder, error) from error

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**self._variables, **(more or {})}

    def settings(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Variables that add settings (name, value) to those the person's environment may hold already.

        They are no arguments, so that a password among them shows in no list of processes.
        """
        first = int(self._variables.get("GIT_CONFIG_COUNT") or 0)
        found: dict[str, str] = {}
        for number, (name, value) in enumerate(pairs, start=first):
            found |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
            found["GIT_CONFIG_COUNT"] = str(number + 1)
        return found

    def _command(self, arguments: Sequence[str]) -> list[str]:
        if self._program is None:
            raise SourceError("git is not installed, or not on the PATH: install git and try again")
        if not self._checked:
            self._check(self._program)
        return [self._program, *_ALWAYS, *arguments]

    def _check(self, program: str) -> None:
        try:
            said = subprocess.run([program, "version"], env=self._variables, capture_output=True, check=False).stdout
        except OSError as error:
            raise SourceError(f"git cannot be started: {error.strerror}: check {program}") from error
        found = re.match(rb"git version (\d+)\.(\d+)", said)
        if found is None or (int(found[1]), int(found[2])) < OLDEST:
            shown = printable(said.decode("utf-8", "replace").strip()) or "no version"
            raise SourceError(f"git is too old ({shown}): install git {OLDEST[0]}.{OLDEST[1]} or newer")
        self._checked = True

    def _reaching(self, address: Address, folder: Path) -> dict[str, str]:
        allowed = {Reach.FOLDER: "file", Reach.HTTP: "http", Reach.HTTPS: "https", Reach.SSH: "ssh"}[address.reach]
        found = {"GIT_ALLOW_PROTOCOL": allowed, **apart(folder)}
        if address.reach is Reach.SSH and not self._has_own_ssh(folder):
            found["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes"
        if address.secret is not None:
            # The URL that is given stays free of the password; this setting puts it back inside git.
            found |= self.settings([(f"url.{address.secret}.insteadOf", address.url)])
        return found

    def _has_own_ssh(self, folder: Path) -> bool:
        if {"GIT_SSH_COMMAND", "GIT_SSH"} & self._variables.keys():
            return True
        asked = ("config", "--get", "core.sshCommand")
        return self.run(*asked, folder=folder, codes=None, variables=apart(folder)).code == 0


def apart(folder: Path) -> dict[str, str]:
    """Variables by which git in a folder takes no notice of a repository that happens to lie around it."""
    return {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)}


def _unreadable(folder: Path, error: OSError) -> SourceError:
    return SourceError(f"{folder} cannot be read: {error.strerror}")


def _quiet(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {n: v for n, v in environment.items() if n not in _DROPPED and not n.startswith("GIT_TRACE")}
    return kept | {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        # Asked only where neither GIT_ASKPASS nor core.askPass is set: a desktop's dialogue would be a prompt.
        "SSH_ASKPASS": "/bin/false",
        "SSH_ASKPASS_REQUIRE": "never",
        "GCM_INTERACTIVE": "never",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }


def _run_alone(
    command: Sequence[str], folder: Path, variables: Mapping[str, str], out: IO[bytes], complaints: IO[bytes]
) -> int:
    with subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=complaints,
        start_new_session=True,
    ) as process:
        try:
            return process.wait()
        except BaseException:  # Ctrl-C does not reach another session by itself
            os.killpg(process.pid, signal.SIGTERM)
            raise


# --- what git complains of, as one sentence --------------------------------------------------------------------------

_REFUSED = (
    r"could not read (?:Username|Password)|Authentication failed|Permission denied|terminal prompts disabled|"
    r"Host key verification failed|error: 40[13]|HTTP 40[13]|access denied|Invalid username or (?:password|token)"
)
_UNREACHABLE = (
    r"Could not resolve host|Failed to connect|Couldn't connect|Connection (?:refused|timed out|reset|closed)|"
    r"Network is unreachable|No route to host|Operation timed out|Temporary failure in name resolution|"
    r"Name or service not known|Could not connect"
)
_ABSENT = r"[Rr]epository .*not found|does not appear to be a git repository|does not exist|error: 404"
_FULL = r"No space left on device|Disk quota exceeded"
_MAKE_ROOM = "the disk is full, so {where} cannot be read: make room"
_HERE: Mapping[str, str] = {
    r"dubious ownership|unsafe repository": """\
{where} belongs to another user, so git refuses to read it: \
if you trust it, run `git config --global --add safe.directory {where}`""",
    r"not a git repository": """\
{where} is not inside a Git repository: run `git init` and commit, or give a clone URL""",
    _FULL: _MAKE_ROOM,
}
_AFAR: Mapping[str, str] = {
    _UNREACHABLE: "{where} cannot be reached: check the address and your network",
    _REFUSED: """\
{where} refused your credentials: make `git ls-remote {where}` work without a question \
(by a credential helper or an ssh agent), then try again""",
    r"SSL certificate problem|certificate verification failed": """\
{where} shows a certificate that is not trusted here: check the address, or git's http.sslCAInfo""",
    _ABSENT: "there is no Git repository at {where}: check the address, and that you may read it",
    _FULL: _MAKE_ROOM,
    r"transport '.*' not allowed": "{where} leads to another kind of address: give its https or ssh one",
}


def explain(complaint: str, where: str, *, afar: bool = False) -> SourceError:
    """What git printed, as an error that says what to do; `where` is the folder or URL, `afar` on another machine."""
    owned = re.search(r"ownership in repository at '([^'\n]+)'", complaint)
    where = hidden(owned[1] if owned else where)
    for pattern, sentence in (_AFAR if afar else _HERE).items():
        if re.search(pattern, complaint):
            return SourceError(sentence.format(where=where))
    lines = [printable(hidden(line)) for line in complaint.splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "nothing")
    return SourceError(f"git could not read {where}: it said {said[:300]!r}")


def ended(process: "subprocess.Popen[bytes]") -> None:
    """End a process of `Git.stream`, whatever it is doing, and close its pipes."""
    if process.poll() is None:
        process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # what was not written yet is of no use to a process that is ending
    process.wait()


def broken(where: Path) -> EngineError:
    """The error for a mirror whose objects cannot be read."""
    return EngineError(f"the mirror {where} cannot be read: delete that folder, it is made again by the next run")
