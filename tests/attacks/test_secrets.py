"""Rows 11 to 13 of the attacks: secrets that are printed, too short, or given away by a side door."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from penstock.errors import PenstockError
from penstock.runners import masking
from penstock.store.secrets import KEY_FILE, Secrets
from penstock.store.sql import open_store
from sources.repositories import Repo, isolated, new_repo

TOKEN = 'gh+p/"x"=é hunter2'
KEY = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA75+/x\nq83vEjRWeJCrze8SNFZ4kA==\n-----END KEY-----\n"


def logged(script: str, tmp_path: Path, *, masked: bool = True, **secrets: str) -> bytes:
    """What a log holds of a step's script whose output goes through the masker, as in a run."""
    log = tmp_path / "log"
    with log.open("wb") as out:
        done = subprocess.run(
            ["sh", "-c", '{ eval "$1"; } 2>&1 | "$2" -I "$3"', "sh", script, sys.executable, str(masking.__file__)],
            env={"PATH": os.environ["PATH"], **secrets, masking.VARIABLE: ",".join(secrets) if masked else ""},
            stdout=out,
            check=True,
        )
    assert done.returncode == 0
    return log.read_bytes()


def python(code: str) -> str:
    return f"{sys.executable} -I -c '{code}'"


# --- row 11: in the log ----------------------------------------------------------------------------------------------

WAYS = {
    "raw": 'echo "$TOKEN"',
    "to stderr": 'echo "$TOKEN" >&2',
    "split over writes": python(
        'import os, time\nfor b in os.environb[b"TOKEN"]: os.write(1, bytes([b])); time.sleep(0.002)'
    ),
    "base64 with a line's end": 'echo "$TOKEN" | base64',
    "base64 behind a prefix": 'printf "user:%s" "$TOKEN" | base64',
    "base64 behind another": 'printf "Bearer: %s!" "$TOKEN" | base64 -w0',
    "base64, url-safe": python(
        'import os, base64; print(base64.urlsafe_b64encode(b"x" + os.environb[b"TOKEN"]).decode())'
    ),
    "url": python('import os, urllib.parse as u; print(u.quote(os.environ["TOKEN"], safe=""))'),
    "url with plus": python('import os, urllib.parse as u; print(u.urlencode({"t": os.environ["TOKEN"]}))'),
    "json": python('import os, json; print(json.dumps({"token": os.environ["TOKEN"]}))'),
    "json as it is": python(
        'import os, json, sys; sys.stdout.buffer.write(json.dumps(os.environ["TOKEN"], ensure_ascii=False).encode())'
    ),
    "hex": python('import os; print(os.environb[b"TOKEN"].hex())'),
    "without a line's end": 'printf %s "$TOKEN"',
    "in the midst of binary": 'head -c 100000 /dev/zero; printf %s "$TOKEN"; head -c 100000 /dev/zero',
    "an error's text": python('import os; raise SystemExit(os.environ["TOKEN"])') + " || :",
}


def tells(text: bytes, value: str) -> list[str]:
    """The ways in which a text tells a value; a base64 text by any 12 signs in a row."""
    data = value.encode()
    signs = [base64.b64encode(b"x" * n + data) for n in range(3)]
    signs += [s.translate(bytes.maketrans(b"+/", b"-_")) for s in signs]
    shapes = {
        "raw": [data],
        "base64": [s[n : n + 12] for s in signs for n in range(4, len(s) - 16)],
        "url": [quote(value, safe="").encode(), quote_plus(value).encode()],
        "json": [json.dumps(value, ensure_ascii=form)[1:-1].encode() for form in (True, False)],
        "hex": [data.hex().encode()],
    }
    return [name for name, several in shapes.items() if any(shape in text for shape in several)]


@pytest.mark.parametrize("way", WAYS)
def test_row_11_a_secret_that_is_printed(way: str, tmp_path: Path) -> None:
    """However a step prints its secret, the log has three stars."""
    script = f"echo before; {WAYS[way]}; echo; echo after"
    assert tells(logged(script, tmp_path, masked=False, TOKEN=TOKEN), TOKEN), "this way tells nothing anyway"
    log = logged(script, tmp_path, TOKEN=TOKEN)
    assert tells(log, TOKEN) == []
    assert b"***" in log
    assert log.startswith(b"before\n")
    assert log.endswith(b"after\n")


def test_row_11_a_secret_of_several_lines(tmp_path: Path) -> None:
    """A key is masked as a whole, line by line, out of order, indented, and in base64 of lines of 76 signs."""
    script = """\
printf %s "$KEY"
printf %s "$KEY" | tac
printf %s "$KEY" | sed 's/^/    /; s/$/\\r/'
printf %s "$KEY" | base64
"""
    log = logged(script, tmp_path, KEY=KEY)
    assert [line for line in KEY.splitlines() if line.encode() in log] == []
    assert tells(log, KEY) == []


# --- row 12: too short ------------------------------------------------------------------------------------------------


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = new_repo(tmp_path / "project", isolated(tmp_path / "person"))
    made.commit("the beginning", a="1")
    return made


def penstock(repo: Repo, *arguments: str, value: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "penstock", *arguments],
        cwd=repo.folder,
        env={**repo.environment, "PENSTOCK_HOME": str(repo.folder.parent / "home")},
        input=value,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("value", ["1", "12", "123", "1234", "12345", " 1 2 ", "1\n\n\n\n\n\n"])
def test_row_12_a_short_secret_is_refused(repo: Repo, value: str) -> None:
    """A value of 1 to 5 characters is refused when it is set, with the reason."""
    done = penstock(repo, "secret", "set", "TOKEN", value=value.encode())
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"under 6 characters: masking it would shred every log" in done.stderr


def test_row_12_a_short_value_does_not_shred_the_log(tmp_path: Path) -> None:
    """Should a short value come to the masker all the same, the log stays readable."""
    assert logged("echo 12345, the letter e and 1", tmp_path, A="e", B="1", C="12345") == (
        b"12345, the letter e and 1\n"
    )


# --- row 13: other doors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [("TOKEN", "hunter2-hunter2"), ("TOKEN=hunter2-hunter2",), ("TOKEN", "--hunter2")]
)
def test_row_13_never_as_an_argument(repo: Repo, arguments: tuple[str, ...]) -> None:
    """A value on the command line is refused, not kept, and not repeated in the sentence that says why."""
    done = penstock(repo, "secret", "set", *arguments)
    assert done.returncode == 2
    assert b"give it on stdin" in done.stderr
    assert b"hunter2" not in done.stdout + done.stderr
    assert b"no secrets" in penstock(repo, "secret", "list").stdout


def test_row_13_no_process_shows_it(repo: Repo) -> None:
    """While a secret is set, no command line of any process holds it."""
    with subprocess.Popen(
        [sys.executable, "-m", "penstock", "secret", "set", "TOKEN"],
        cwd=repo.folder,
        env={**repo.environment, "PENSTOCK_HOME": str(repo.folder.parent / "home")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"hunter2-hunter2")
        process.stdin.flush()
        assert b"hunter2" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.communicate()
    assert process.returncode == 0


def test_row_13_nothing_in_the_home_holds_it(repo: Repo) -> None:
    """After setting, listing, replacing and removing, no file of the home holds the value in any shape."""
    for arguments in (("set", "TOKEN"), ("list",), ("set", "TOKEN"), ("set", "OTHER"), ("remove", "TOKEN")):
        assert penstock(repo, "secret", *arguments, value=TOKEN.encode()).returncode == 0
    files = [p for p in (repo.folder.parent / "home").rglob("*") if p.is_file()]
    assert KEY_FILE in {p.name for p in files}
    assert [p for p in files if tells(p.read_bytes(), TOKEN)] == []


def test_row_13_no_error_holds_it(tmp_path: Path) -> None:
    """No error about a secret, its key or its row holds the value, nor does what caused it."""
    with open_store(tmp_path / "penstock.db") as store:
        secrets = Secrets(store, tmp_path / KEY_FILE)
        secrets.put("p", "TOKEN", TOKEN.encode(), "ada")
        errors = []
        for harm in (b"", b"AAAA", base64.b64encode(bytes(32))):
            (tmp_path / KEY_FILE).write_bytes(harm)
            with pytest.raises(PenstockError) as found:
                secrets.values("p", ["TOKEN"])
            errors.append(found.value)
        for value in (TOKEN.encode() + b"\0", TOKEN.encode() + b"\xff", TOKEN.encode() * 9999):
            with pytest.raises(PenstockError) as found:
                secrets.put("p", "TOKEN", value, "ada")
            errors.append(found.value)
    assert [e for e in errors if "hunter2" in f"{e}{e.__cause__}" or e.__cause__ is not None] == []
