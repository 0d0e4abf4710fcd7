"""`penstock demo`: the whole road on a real model, by the same commands that a person types.

The story (which commits, which request) stands beside the example in a file of its own; nothing here knows the model.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import penstock
from penstock.cli.settings import Settings
from penstock.engine.followers import CoordinatorLock
from penstock.errors import EngineError
from penstock.routers.envoy import is_free

STORY = "digits.demo.toml"
SHADES = " .:-=+*#%@"


class DemoError(EngineError):
    """The demo did not go as its story says."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo plays: repository, environment of its commands, and the story."""

    repository: Path
    variables: Mapping[str, str]
    story: Mapping[str, Any]


def demonstrate(settings: Settings, *, keep: bool) -> int:
    """Play the story; returns 0 where everything went as told. Leaves nothing running unless asked to `keep`."""
    examples = _examples()
    story = tomllib.loads((examples / STORY).read_text(encoding="utf-8"))
    lock = CoordinatorLock(_demo_home(settings, "lock"))
    if not lock.acquire():
        raise EngineError("another demo is running on this machine for this user: wait until it has ended")
    folder = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    stage = Stage(folder / story["example"], _variables(settings), story)
    try:
        shutil.copytree(
            examples / story["example"], stage.repository, ignore=shutil.ignore_patterns("__pycache__", ".*cache")
        )
        _quiet(stage, "stop")
        _play(stage)
    finally:
        if not keep:
            _quiet(stage, "stop")
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()
    _farewell(stage, keep=keep)
    return 0


def _examples() -> Path:
    """The examples that ship with the package, or those of a source checkout."""
    package = Path(penstock.__file__).parent
    for folder in (package / "examples", package.parent.parent / "examples"):
        if (folder / STORY).is_file():
            return folder
    raise EngineError("the example of the demo is missing from this installation: install penstock again")


def _variables(settings: Settings) -> dict[str, str]:
    """A home of its own below the person's, so that demos share their caches and touch nothing else; no GPU needed."""
    return {
        **settings.environment,
        "PENSTOCK_HOME": str(_demo_home(settings)),
        "CUDA_VISIBLE_DEVICES": "",
        "GIT_AUTHOR_NAME": "Demo",
        "GIT_AUTHOR_EMAIL": "demo@example.com",
        "GIT_COMMITTER_NAME": "Demo",
        "GIT_COMMITTER_EMAIL": "demo@example.com",
    }


def _demo_home(settings: Settings, *below: str) -> Path:
    home = settings.home / "demo"
    home.mkdir(parents=True, exist_ok=True)
    return home.joinpath(*below)


def _play(stage: Stage) -> None:
    _free_ports(stage)
    _git(stage, "init", "--quiet", "--initial-branch=main")
    _chapter(
        "1  A commit becomes a served model", "every step, test and gate is real; the first time takes a minute or two"
    )
    _commit(stage, stage.story["title"])
    _penstock(stage, "run", expect=0)
    first = _served(stage)
    _predict(stage)
    _chapter("2  A commit that spoils the model", "no test notices: the gates do")
    _edit(stage, stage.story["spoil"])
    _penstock(stage, "run", expect=1)
    if _served(stage) != first:
        raise DemoError("a spoiled model reached production, which must never happen: please report it")
    _say(f"production still answers, and still with {first}:")
    _predict(stage)
    _chapter("3  A good commit", "it replaces the release without a dropped request")
    _git(stage, "revert", "--no-edit", "HEAD")
    _edit(stage, stage.story["improve"])
    _penstock(stage, "run", expect=0)
    _predict(stage)
    _chapter("4  Back again", "the release before is still warm: no rebuild, no restart")
    _penstock(stage, "rollback", stage.story["environment"], expect=0)
    _penstock(stage, "status", "--project", ".", expect=0)
    if _served(stage) != first:
        raise DemoError("the rollback did not bring the first release back: please report it")


# --- what a person sees --------------------------------------------------------------------------------------------


def _say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _chapter(title: str, remark: str) -> None:
    bold, dim, plain = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
    _say(f"\n{bold}{title}{plain}\n{dim}{remark}{plain}\n")


def _farewell(stage: Stage, *, keep: bool) -> None:
    _say("\nThat was the whole road: commit, build, test, gates, release, rollback.")
    if keep:
        home = stage.variables["PENSTOCK_HOME"]
        _say(f"It still serves. Look around: cd {stage.repository} && PENSTOCK_HOME={home} penstock status")
    _say("Next: go to a repository of your own and type  penstock init")


# --- acting --------------------------------------------------------------------------------------------------------


def _penstock(stage: Stage, *arguments: str, expect: int) -> None:
    shown = " ".join(arguments)
    _say(f"$ penstock {shown}")
    done = subprocess.run(_command(*arguments), cwd=stage.repository, env=dict(stage.variables), check=False)
    if done.returncode != expect:
        raise DemoError(f"penstock {shown} ended with exit code {done.returncode} instead of {expect}: see above")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penstock", *arguments]


def _quiet(stage: Stage, *arguments: str) -> None:
    subprocess.run(
        _command(*arguments), cwd=stage.repository, env=dict(stage.variables), check=False, capture_output=True
    )


def _git(stage: Stage, *arguments: str) -> None:
    done = subprocess.run(
        ["git", *arguments],
        cwd=stage.repository,
        env=dict(stage.variables),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"git {arguments[0]} failed: {done.stderr.strip()}")


def _commit(stage: Stage, title: str) -> None:
    _git(stage, "add", "--all")
    _git(stage, "commit", "--quiet", "--message", title)
    _say(f'$ git commit -m "{title}"')


def _edit(stage: Stage, edit: Mapping[str, str]) -> None:
    path = stage.repository / edit["file"]
    text = path.read_text(encoding="utf-8")
    if text.count(edit["old"]) != 1:
        raise DemoError(f"{edit['file']} of the example has changed, so the demo's edit no longer fits")
    path.write_text(text.replace(edit["old"], edit["new"]), encoding="utf-8")
    _commit(stage, edit["title"])


def _free_ports(stage: Stage) -> None:
    """Give the example other ports where its own are taken on this machine."""
    path = stage.repository / "penstock.yaml"
    text = path.read_text(encoding="utf-8")
    words = text.replace("{", " ").replace("}", " ").replace(",", " ").split()
    for before, port in pairwise(words):
        if before == "port:" and port.isdigit() and not is_free(int(port)):
            other = _any_port()
            text = text.replace(f"port: {port}", f"port: {other}")
            _say(f"note: port {port} is taken on this machine, so the demo uses {other}")
    path.write_text(text, encoding="utf-8")


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- looking -------------------------------------------------------------------------------------------------------


def _json(stage: Stage, *arguments: str) -> Any:
    done = subprocess.run(
        _command(*arguments, "--json"),
        cwd=stage.repository,
        env=dict(stage.variables),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def _serving(stage: Stage) -> Mapping[str, Any]:
    rows = _json(stage, "status", "--project", ".")["environments"]
    return next(row for row in rows if row["environment"] == stage.story["environment"])


def _served(stage: Stage) -> str:
    return str(_serving(stage)["version"])


def _predict(stage: Stage) -> None:
    """Send real images to what serves and show the answers beside the truth."""
    wanted = stage.story["request"]
    url = f"{_serving(stage)['url']}{wanted['path']}"
    lines = (stage.repository / wanted["samples"]).read_text(encoding="utf-8").splitlines()
    right = 0
    for number, line in enumerate(lines):
        answer = _post(url, line.encode())[wanted["answer"]][0]
        sample = json.loads(line)
        right += answer == sample["truth"]
        if number == 2:
            _draw(sample[wanted["image"]][0], wanted, answer, sample["truth"])
    _say(f"   of {len(lines)} held-out images, {right} are recognised\n")


def _post(url: str, body: bytes) -> Any:
    request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as response:
        return json.load(response)


def _draw(pixels: Sequence[float], wanted: Mapping[str, Any], answer: Any, truth: Any) -> None:
    """The image in characters, with prediction and truth beside it."""
    width, darkest = int(wanted["width"]), float(wanted["darkest"])
    beside = {2: f"POST {wanted['path']}", 4: f"prediction  {answer}", 5: f"truth       {truth}"}
    for row in range(len(pixels) // width):
        shades = (int(p / darkest * (len(SHADES) - 1)) for p in pixels[row * width : (row + 1) * width])
        _say(f"   {''.join(SHADES[s] * 2 for s in shades)}   {beside.get(row, '')}".rstrip())
