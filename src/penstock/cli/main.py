"""The command line: a list of verbs, and the edge where every error becomes one sentence and an exit code."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click
import typer

from penstock.cli import delivering, looking, running, starting
from penstock.errors import PenstockError

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
    ("runs", looking.runs),
    ("show", looking.show),
    ("logs", looking.logs),
    ("explain", looking.explain),
    ("status", looking.status),
    ("deploy", delivering.deploy),
    ("rollback", delivering.rollback),
    ("stop", delivering.stop),
    ("lineage", looking.lineage),
    ("gc", delivering.gc),
    ("doctor", looking.doctor),
    ("demo", starting.demo),
)
for name, verb in VERBS:
    app.command(name)(verb)


def _version(wanted: bool) -> None:
    if wanted:
        from penstock import __version__

        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def _every(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """CI/CD for AI models: every commit becomes a versioned, built, tested, gated and served release."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code; no error of a person ends in a traceback."""
    sys.exit(execute(arguments))


def execute(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return int(leaving.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        _say(error.format_message())
        _say("penstock --help lists the commands", mark="")
        return 2
    except PenstockError as error:
        _say(str(error))
        return error.exit_code
    except BrokenPipeError:
        sys.stdout = None  # type: ignore[assignment]  # nobody reads any more: keep the interpreter from flushing
        return 0
    except Exception as error:  # noqa: BLE001 (the outermost edge)
        return _defect(error)
    return int(code or 0)


def _say(sentence: str, mark: str = "penstock: ") -> None:
    """One sentence on stderr, with nothing that a terminal would obey."""
    text = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in sentence)
    sys.stderr.write(f"{mark}{text}\n")


def _defect(error: Exception) -> int:
    """A defect of ours: one sentence, and the traceback in a file for the report."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", prefix="penstock-defect-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    kept = Path(file.name)
    _say(f"a defect of Penstock ({type(error).__name__}: {error}); the details are in {kept}: please report them")
    return 3


if __name__ == "__main__":
    main()
