"""Real repositories for tests, apart from the machine's own git settings."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """
[init]
    defaultBranch = main
[user]
    name = Ada
    email = ada@example.org
"""


def isolated(home: Path) -> dict[str, str]:
    """A whole environment in which git knows Ada, `main`, and nothing of this machine."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "gitconfig").write_text(_CONFIG)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "2026-01-02T03:04:05+01:00",
        "GIT_COMMITTER_DATE": "2026-01-02T03:04:05+01:00",
    }


@dataclass(frozen=True)
class Repo:
    """A repository in `folder`."""

    folder: Path
    environment: dict[str, str]

    def git(self, *arguments: str, text: bytes | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=self.environment, input=text, capture_output=True, check=False
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, **files: str) -> None:
        for name, text in files.items():
            self.put(name, text)

    def put(self, path: str, content: str | bytes) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def commit(self, message: str = "a change", **files: str) -> str:
        self.write(**files)
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def clone(self, folder: Path, *options: str) -> "Repo":
        self.git("clone", "--quiet", *options, self.folder.as_uri(), str(folder))
        return Repo(folder, self.environment)


def new_repo(folder: Path, environment: dict[str, str]) -> Repo:
    folder.mkdir(parents=True)
    repo = Repo(folder, environment)
    repo.git("init", "--quiet")
    return repo
