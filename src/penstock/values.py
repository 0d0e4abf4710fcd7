"""What single values of the pipeline file may be: each kind with its check, and its sentence where it fails."""

import math
import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from penstock.crons import cron_fault
from penstock.images import check_image
from penstock.patterns import has_wildcard


def described(value: object) -> str:
    """A value of a file in words, for sentences that say what was found."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the text "{shortened(value)}"'
    if isinstance(value, int | float):
        return f"the number {shortened(str(value))}"
    return "a mapping" if isinstance(value, Mapping) else "a list"


def shortened(text: str) -> str:
    """At most 40 characters of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"


def wrong(sentence: str, at: str | None = None, lacks: tuple[str, ...] = ()) -> PydanticCustomError:
    """An error of a value or mapping: `at` is the key it stands at, `lacks` the keys that are absent (`*`: any)."""
    return PydanticCustomError("penstock", "{sentence}", {"sentence": sentence, "at": at, "lacks": lacks})


PLACE = re.compile(r"\$\{\{([^{}]{0,200})(\}\})?")
"""Where a text is filled in: `${{ name }}`; without the second group it is not closed."""

RESERVED = ("check", "lock", "runtime", "package", "serve", "replay")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_DURATION = re.compile(r"(?:([0-9.]+)h)?(?:([0-9.]+)m)?(?:([0-9.]+)s)?(?:([0-9.]+)ms)?")
_YEAR = 31_536_000.0


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise wrong(f'"{shortened(name)}" cannot be a name: expected a letter, then at most 63 letters, digits, _ or -')
    return name


def _check_step_name(name: str) -> str:
    """A name, or that of a cell: what stands in its brackets is checked with the step, which knows its cell."""
    if name in RESERVED:
        raise wrong(f'"{name}" is the name of a step of Penstock\'s own: choose another')
    return name if name.endswith("]") else _check_name(name)


def family_of(name: str) -> str:
    """The step that a cell is of: `train` for `train[seed=0]`, and for `train` itself."""
    return name.partition("[")[0]


def cell_name(family: str, cell: Mapping[str, str]) -> str:
    """The name of a cell: `train[seed=0,lr=0.1]`."""
    return f"{family}[{','.join(f'{axis}={value}' for axis, value in cell.items())}]"


def _check_axis(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise wrong(f'"{shortened(name)}" cannot be an axis: expected a letter, then letters, digits, _ or -')
    return name


def _check_axis_value(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.+:/@%-]{1,64}", text):
        sentence = "expected a value of 1 to 64 letters, digits and signs of _ . + : / @ % -, found"
        raise wrong(f"{sentence} {described(text)}")
    return text


def _check_project(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise wrong(f'"{shortened(name)}" cannot be a name: expected at most 64 letters, digits, ., _ or -')
    return name


def _check_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise wrong(f'"{shortened(name)}" cannot be a variable: expected letters, digits and _, no digit first')
    if name.startswith("PENSTOCK_") or name in {"PORT", "HOME"}:
        raise wrong(f'the variable "{name}" is set by Penstock: choose another name')
    return name


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _check_value(text: str) -> str:
    if "\0" in text:
        raise wrong("a variable cannot hold a NUL character")
    return text


def _check_command(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise wrong(f"expected a command, found {described(text)}")
    return text


def as_tuple(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _as_seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value)
    try:
        amounts = [float(amount or 0) for amount in found.groups()] if found and value else [math.nan]
    except ValueError:
        amounts = [math.nan]
    seconds = math.fsum(a * unit for a, unit in zip(amounts, (3600, 60, 1, 0.001), strict=False))
    if not 0 < seconds <= _YEAR:
        raise wrong(f"expected a duration such as 90s, 30m or 1h30m (at most a year), found {described(value)}")
    return seconds


_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")


def _as_share(value: Any) -> Any:
    """A share of 1 of a text such as 5% or 0.5 %; a number is a share already."""
    if not isinstance(value, str):
        return value
    found = _SHARE.fullmatch(value)
    if found is None:
        raise wrong(f"expected a share such as 5% or 0.05, found {described(value)}")
    return float(found[1]) / 100


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKMGTP]i?B|B)")
_POWERS = "BKMGTP"
_LEAST, _MOST = 1 << 20, 1 << 50


def _as_bytes(value: Any) -> Any:
    """Bytes of a size such as 2GiB or 1.5GB; a number is bytes already."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise wrong(f"expected a size such as 2GiB, 512MiB or 1.5GB, found {described(value)}")
    unit = found[2].upper()
    return int(float(found[1]) * (1024 if "I" in unit else 1000) ** _POWERS.index(unit[0]))


def _check_memory(size: int) -> int:
    if not _LEAST <= size <= _MOST:
        raise wrong(f"expected a size from 1MiB to 1PiB, such as 2GiB, found {size:,} bytes")
    return size


def _as_python(value: Any) -> Any:
    if isinstance(value, float) and value in {3.1, 3.2}:
        quoted = f'"{value}0"'
        raise wrong(f"without quotes this reads as the number {value}: if Python {value}0 is meant, write {quoted}")
    return str(value) if isinstance(value, float) else value


def _check_python(version: str) -> str:
    if not re.fullmatch(r"3\.[0-9]{1,2}(\.[0-9]{1,3})?", version):
        raise wrong(f'expected a Python version such as "3.11", found {described(version)}')
    return version


_PLAIN_PATH = re.compile(r"(?:\w[\w-]*(?:\.[\w-]+)*/){0,29}(?:\w[\w-]*(?:\.[\w-]+)*/?)", re.ASCII)
_PARTS = 30


def _check_pattern(path: str) -> str:
    """The path in plain form: relative, without `./` in front. Refuses what could lead out of the repository."""
    if len(path) < 200 and _PLAIN_PATH.fullmatch(path):  # nearly all of them, and quick
        return path
    plain = path
    while plain.startswith("./") and plain != "./":
        plain = plain[2:]
    if fault := _path_fault(plain):
        raise wrong(f'the path "{shortened(path)}" {fault}')
    return "." if plain == "./" else plain


def _path_fault(path: str) -> str | None:
    parts = path.removesuffix("/").split("/")
    faults = {
        "is empty": not path,
        "is longer than 500 characters": len(path) > 500,
        f"has more than {_PARTS} parts": len(parts) > _PARTS,
        "holds a control character": any(ord(c) < 32 or ord(c) == 127 for c in path),
        "holds a backslash: separate folders by /": "\\" in path,
        "is absolute: write it relative to the repository": path.startswith("/"),
        "begins with ~, which is not expanded: write it relative to the repository": path.startswith("~"),
        "holds a $, which is not expanded: write it relative to the repository": "$" in path,
        'leads out of the repository by "..": write it relative to the repository': ".." in parts,
        'has an empty part or a "." in the middle: leave it out': path not in {".", "./"} and {"", "."} & {*parts},
        "has ** beside other characters: write it as a part of its own, as in src/**/*.py": any(
            "**" in part and part != "**" for part in parts
        ),
    }
    return next((sentence for sentence, present in faults.items() if present), None)


def _check_file(path: str) -> str:
    path = _check_pattern(path)
    if has_wildcard(path) or path.endswith("/") or path == ".":
        raise wrong(f'the path "{shortened(path)}" must name one file, without wildcards')
    return path


def _check_folder(path: str) -> str:
    path = _check_pattern(path)
    if has_wildcard(path) or ":" in path:
        raise wrong(f'the path "{shortened(path)}" must name one folder, without wildcards or ":"')
    return path


def _check_checkpoint(path: str) -> str:
    path = _check_folder(path)
    if path == ".":
        raise wrong("the checkpoint must be a folder below the repository's root, such as checkpoints/")
    return path


def _check_image(name: str) -> str:
    try:
        return check_image(name)
    except ValueError as error:
        raise wrong(str(error)) from None


def _check_pyproject(path: str) -> str:
    """The file itself, where the folder was named."""
    path = _check_folder(path)
    if path == ".":
        return "pyproject.toml"
    return path if path.endswith(".toml") else f"{path.rstrip('/')}/pyproject.toml"


def _check_health(path: str) -> str:
    if not re.fullmatch(r"/(?!/)[!-~]*", path):
        raise wrong(f'expected a path that begins with one "/", such as /health, found {described(path)}')
    return path


def _check_branch(pattern: str) -> str:
    parts = pattern.split("/")
    if not pattern or len(pattern) > 250 or "" in parts or any(c.isspace() or ord(c) < 32 for c in pattern):
        raise wrong(f"expected a branch such as main or release/*, found {described(pattern)}")
    if any("**" in part and part != "**" for part in parts):
        raise wrong(f'the branch "{shortened(pattern)}" has ** beside other characters: write it as a part of its own')
    return pattern


def _check_group(text: str) -> str:
    if "${{" in text:
        raise wrong("a group is plain text: for a group of each branch add per: branch")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}", text):
        raise wrong(f"expected a group of at most 64 letters, digits, ., _, / or -, found {described(text)}")
    return text


def _check_address(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]{0,30}://[!-~]{1,1000}", text):
        example = "s3://bucket/data/ (for anything else: fingerprint: COMMAND)"
        raise wrong(f"expected an address such as {example}, found {described(text)}")
    return text


def _check_plain_command(text: str) -> str:
    if "${{" in _check_command(text):
        raise wrong('"${{" is not replaced here: write the command out')
    return text


def _check_cron(text: str) -> str:
    if fault := cron_fault(text):
        raise wrong(fault)
    return " ".join(text.split())


def _check_day(text: str) -> str:
    try:
        sound = bool(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text)) and bool(date.fromisoformat(text))
    except ValueError:
        sound = False
    if not sound:
        raise wrong(f"expected a day such as 2026-12-31, found {described(text)}")
    return text


def _check_plain_text(text: str) -> str:
    if not text.strip() or len(text) > 1000 or not text.isprintable():
        raise wrong(f"expected a line of text, at most 1000 characters, found {described(text)}")
    return text.strip()


Name = Annotated[str, AfterValidator(_check_name)]
Day = Annotated[str, AfterValidator(_check_day)]
PlainText = Annotated[str, AfterValidator(_check_plain_text)]
StepName = Annotated[str, AfterValidator(_check_step_name)]
VariableName = Annotated[str, AfterValidator(_check_variable)]
VariableValue = Annotated[
    str, AfterValidator(_check_value), BeforeValidator(_as_text, json_schema_input_type=str | float | bool)
]
Variables = dict[VariableName, VariableValue]
CommandText = Annotated[str, AfterValidator(_check_command)]
PathPattern = Annotated[str, AfterValidator(_check_pattern)]
FilePath = Annotated[str, AfterValidator(_check_file)]
FolderPath = Annotated[str, AfterValidator(_check_folder)]
ImageName = Annotated[str, AfterValidator(_check_image)]
CheckpointPath = Annotated[str, AfterValidator(_check_checkpoint)]
PyprojectPath = Annotated[str, AfterValidator(_check_pyproject)]
HealthPath = Annotated[str, AfterValidator(_check_health)]
PythonVersion = Annotated[
    str, AfterValidator(_check_python), BeforeValidator(_as_python, json_schema_input_type=str | float)
]
ProjectName = Annotated[str, AfterValidator(_check_project)]
Axis = Annotated[str, AfterValidator(_check_axis)]
AxisValue = Annotated[
    str, AfterValidator(_check_axis_value), BeforeValidator(_as_text, json_schema_input_type=str | float | bool)
]
Group = Annotated[str, AfterValidator(_check_group)]
Address = Annotated[str, AfterValidator(_check_address)]
PlainCommand = Annotated[str, AfterValidator(_check_plain_command)]
CronText = Annotated[str, AfterValidator(_check_cron)]
BranchPattern = Annotated[str, AfterValidator(_check_branch)]
LIST = BeforeValidator(as_tuple, json_schema_input_type=str | list[str])
Texts = Annotated[tuple[str, ...], Field(fail_fast=True), LIST]
Paths = Annotated[tuple[PathPattern, ...], Field(fail_fast=True), LIST]
Folders = Annotated[tuple[FolderPath, ...], Field(fail_fast=True), LIST]
VariableNames = Annotated[tuple[VariableName, ...], Field(fail_fast=True), LIST]
Branches = Annotated[tuple[BranchPattern, ...], Field(fail_fast=True), LIST]
Addresses = Annotated[tuple[Address, ...], Field(fail_fast=True), LIST]
Number = Annotated[float, Field(strict=True)]
Seconds = Annotated[
    float, Field(strict=True, gt=0, le=_YEAR), BeforeValidator(_as_seconds, json_schema_input_type=float | str)
]
Bytes = Annotated[
    int, Field(strict=True), AfterValidator(_check_memory), BeforeValidator(_as_bytes, json_schema_input_type=int | str)
]
Share = Annotated[float, Field(strict=True, ge=0, le=1), BeforeValidator(_as_share, json_schema_input_type=float | str)]
Flag = Annotated[bool, Field(strict=True)]
