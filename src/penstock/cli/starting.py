"""Verbs to begin with: init and demo."""

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.settings import read_settings
from penstock.errors import UsageError


def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The repository.")] = Path(),
    *,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Write a penstock.yaml from what the repository holds.

    Example: penstock init
    """
    from penstock.cli.scaffolding import scaffold

    if not path.is_dir():
        raise UsageError(f"{path} is not a folder: name the repository's folder")
    target = path / "penstock.yaml"
    if target.exists() and not force:
        raise UsageError(f"{target} is there already: edit it, or write over it with --force")
    text, remarks = scaffold(path)
    target.write_text(text, encoding="utf-8")
    for remark in remarks:
        typer.echo(remark, err=True)
    typer.echo(f"wrote {target}: read it, then penstock check, commit it, penstock run")


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the demo's folder and servers for you to look at.")
    ] = False,
) -> None:
    """Take a real model from a commit to production, watch a gate stop a bad one, and roll back.

    Example: penstock demo
    """
    from penstock.cli.demonstration import demonstrate

    raise typer.Exit(demonstrate(read_settings(), keep=keep))
