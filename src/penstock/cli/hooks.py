"""Git hooks that wake `penstock serve` when a commit arrives.

A hook is a POSIX shell script that writes one byte into a FIFO of the home. It opens the FIFO for reading too, so that
it never waits for a reader, and writes in the background, so that it never waits at all. A hook that was there before
is kept beside it and executed as before.
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import UsageError
from penstock.sources.git_commands import Git, explain

MARK = "# penstock hook: "
KEPT = ".before-penstock"

SCRIPT = """\
#!/bin/sh
{mark}wakes `penstock serve`; `penstock hook remove` takes it away.
fifo={fifo}
if [ -p "$fifo" ] && [ -w "$fifo" ]; then
  (printf . 1<>"$fifo") </dev/null >/dev/null 2>&1 &
fi
if [ -x "$0{kept}" ]; then
  exec "$0{kept}" "$@"
fi
exit 0
"""


@dataclass(frozen=True, slots=True)
class Hook:
    """The hook of one repository: where it is, and whether the repository is bare."""

    path: Path
    bare: bool

    @property
    def kept(self) -> Path:
        """Where a hook that was there before stays."""
        return self.path.with_name(self.path.name + KEPT)

    def is_ours(self) -> bool:
        return self.path.is_file() and MARK.encode() in self.path.read_bytes()[:4096]


def find_hook(folder: Path, environment: Mapping[str, str]) -> Hook:
    """The hook that tells of commits: `post-receive` of a bare repository, `post-commit` of a checkout.

    Raises SourceError where the folder is in no repository, UsageError where its hooks are not its own.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name a Git repository of this machine")
    git = Git(environment)
    asked = ("rev-parse", "--path-format=absolute", "--is-bare-repository", "--git-common-dir")
    answer = git.run(*asked, folder=folder, codes=None)
    if answer.code:
        raise explain(answer.complaint, str(folder))
    bare, common = answer.lines()
    # The last of them is /dev/null: whatever is run here is run without hooks.
    elsewhere = git.run("config", "--type=path", "--get-all", "core.hooksPath", folder=folder).lines()[:-1]
    own = Path(common) / "hooks"
    if elsewhere and (folder / elsewhere[-1]).resolve() != own.resolve():
        raise UsageError(
            f"the hooks of {folder} lie in {elsewhere[-1]} (core.hooksPath), which may be shared or committed: "
            "unset core.hooksPath for it, or rely on --poll"
        )
    return Hook(own / ("post-receive" if bare == "true" else "post-commit"), bare == "true")


def install(hook: Hook, fifo: Path) -> bool:
    """Write the hook, or write it anew; True where one that was there before is kept beside it. Raises UsageError."""
    hook.path.parent.mkdir(exist_ok=True)
    if os.path.lexists(hook.path) and not hook.is_ours():
        if os.path.lexists(hook.kept):
            raise UsageError(f"{hook.kept} is there already: move it away, then try again")
        hook.path.rename(hook.kept)
    new = hook.path.with_name(f".{hook.path.name}.new")
    new.write_text(SCRIPT.format(mark=MARK, fifo=shlex.quote(str(fifo)), kept=KEPT), encoding="utf-8")
    new.chmod(0o755)
    new.replace(hook.path)
    return hook.kept.exists()


def remove(hook: Hook) -> bool:
    """Take the hook away and put back what was there before; False where it is not ours."""
    if not hook.is_ours():
        return False
    if os.path.lexists(hook.kept):
        hook.kept.replace(hook.path)
    else:
        hook.path.unlink()
    return True
