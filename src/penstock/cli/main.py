"""The command line: a list of verbs, and the edge where every error becomes one sentence and an exit code."""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.exceptions import TyperException

from penstock.cli import (
    baselines,
    comparing,
    delivering,
    exporting,
    freezing,
    gating,
    insight,
    looking,
    reporting,
    rollouts,
    running,
    secrets,
    serving,
    starting,
    testing,
)
from penstock.errors import PenstockError, UsageError

app = typer.Typer(
    name="penstock",
    help="CI/CD for AI models: every commit becomes a versioned, built, tested, gated and served release.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

VERBS = (
    ("init", starting.init),
    ("check", running.check),
    ("plan", running.plan),
    ("run", running.run),
    ("resume", running.resume),
    ("cancel", running.cancel),
    ("rerun", running.rerun),
    ("serve", serving.serve),
    ("runs", looking.runs),
    ("show", looking.show),
    ("logs", looking.logs),
    ("explain", looking.explain),
    ("status", looking.status),
    ("tests", testing.known_tests),
    ("gate", gating.gate),
    ("approve", running.approve),
    ("deploy", delivering.deploy),
    ("promote", rollouts.promote),
    ("abort", rollouts.abort),
    ("rollback", delivering.rollback),
    ("freeze", freezing.freeze),
    ("unfreeze", freezing.unfreeze),
    ("stop", delivering.stop),
    ("lineage", looking.lineage),
    ("insight", insight.insight),
    ("compare", comparing.compare),
    ("report", reporting.report),
    ("export", exporting.export),
    ("gc", delivering.gc),
    ("doctor", looking.doctor),
    ("demo", starting.demo),
)
SURROUNDINGS = frozenset(
    {errno.EACCES, errno.EDQUOT, errno.EIO, errno.EISDIR, errno.ELOOP, errno.EMFILE, errno.ENAMETOOLONG}
    | {errno.ENFILE, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS}
)
"""What the system refuses for reasons that lie outside of Penstock; anything else is a defect."""

for name, verb in VERBS:
    app.command(name)(verb)
app.add_typer(secrets.app, name="secret")
app.add_typer(baselines.app, name="baseline")
app.add_typer(serving.hook_app, name="hook")


def _version(wanted: bool) -> None:
    if wanted:
        from penstock import __version__

        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def _every(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),  # noqa: ARG001 (its callback does the work)
) -> None:
    """CI/CD for AI models: every commit becomes a versioned, built, tested, gated and served release."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the current folder is gone: change to another") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code; no error of a person ends in a traceback."""
    sys.exit(execute(arguments))


def execute(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    if sys.stdout is None:  # closed by who called
        _write_to_nobody()
    code = _attempt(lambda: app(args=None if arguments is None else list(arguments), standalone_mode=False))
    return _attempt(sys.stdout.flush) or code


def _attempt(part: Callable[[], object]) -> int:
    """Do a part of the command; returns the exit code that stands for how it ended."""
    try:
        return int(part() or 0)  # type: ignore[call-overload, no-any-return]
    except BrokenPipeError:
        _write_to_nobody()
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the outermost edge)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _write_to_nobody()  # else the rest is tried again at the interpreter's end
        return _exit_code(error)


def _write_to_nobody() -> None:
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (flushed and closed at exit)


def _exit_code(error: BaseException) -> int:  # noqa: PLR0911 (one for each kind of error)
    """Say what went wrong in one sentence; returns the exit code that stands for it."""
    match error:
        case typer.Exit():
            return int(error.exit_code)
        case typer.Abort() | KeyboardInterrupt():
            return 130
        case TyperException():
            return _misused(error)
        case PenstockError():
            _say(str(error))
            return error.exit_code
        case UnicodeEncodeError():
            _say(f"{error.object!r:.80} is not UTF-8 text: Penstock takes no other names")
            return 2
        case OSError() if error.errno in SURROUNDINGS:
            where = f": {error.filename!s:.200}" if error.filename else ""
            _say(f"the system refused ({error.strerror}{where}): make room or change permissions, then try again")
            return 3
        case _:
            return _defect(error)


def _misused(error: TyperException) -> int:
    """Words of the command line that fit no verb; without any words, the help."""
    message = str(getattr(error, "format_message", error.__str__)()).strip()
    if message.startswith("Usage:"):
        sys.stderr.write(f"{message}\n")
    else:
        _say(f"{message.rstrip('.')} ({_help_of(getattr(error, 'ctx', None))})")
    return 2


def _help_of(context: Any) -> str:
    """Where the words are explained that were not understood: the verb's own help, or that of all."""
    names: list[str] = []
    while context is not None and context.parent is not None:
        names.insert(0, str(context.info_name))
        context = context.parent
    return f"penstock {' '.join(names)} --help tells how" if names else "penstock --help lists the commands"


def _say(sentence: str) -> None:
    """One sentence on stderr, with nothing that a terminal would obey."""
    text = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in sentence)
    sys.stderr.write(f"penstock: {text}\n")


def _defect(error: BaseException) -> int:
    """A defect of ours: one sentence, and the traceback in a file for the report."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", prefix="penstock-defect-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    kept = Path(file.name)
    _say(f"a defect of Penstock ({type(error).__name__}: {error}); the details are in {kept}: please report them")
    return 3


if __name__ == "__main__":
    main()
