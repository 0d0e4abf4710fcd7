"""Every error that a person can meet: one sentence that says what is wrong, where, and what to do.

A `PenstockError` carries the exit code of the command line (0 passed, 1 failed, 2 usage or file, 3 errored,
4 waiting for a person) and the HTTP status that a server answers with. Failure of the thing under test is a
value (`runs.py`), never an error of this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class PenstockError(Exception):
    """Base of all errors that a person can cause or meet; `str(error)` is the whole sentence."""

    exit_code = 3
    http_status = 500


class UsageError(PenstockError):
    """The command was asked for something that makes no sense as written."""

    exit_code = 2
    http_status = 400


class NotFoundError(UsageError):
    """A run, step, version, environment or file that was named does not exist."""

    http_status = 404


class SourceError(UsageError):
    """The repository, reference or commit cannot be read."""


class StateError(UsageError):
    """The verb is understood but the thing is in a state that forbids it."""

    http_status = 409


class UntrustworthyError(PenstockError):
    """Stored bytes do not match their digest, or a record contradicts itself."""


class EngineError(PenstockError):
    """A part that Penstock itself needs (disk, uv, Envoy, database) did not do its work."""


class RouteError(EngineError):
    """Environments cannot be reached at their ports; what was to be routed elsewhere is in force.

    `environments` are their names as in the routes; each is as it was before, as far as it could be reached then.
    """

    def __init__(self, sentence: str, environments: Sequence[str]) -> None:
        self.environments = tuple(environments)
        super().__init__(sentence)


class DiskError(EngineError):
    """The home cannot be written any more: nothing is acknowledged from then on."""


class TransitionError(PenstockError):
    """An event that the transition table does not allow; nothing was changed."""


class ReportError(PenstockError):
    """A report, metrics or evidence file of a step cannot be read."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a pipeline file, at a position counted from 1."""

    file: str
    line: int
    column: int
    sentence: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.sentence}"


class PipelineError(UsageError):
    """A pipeline file with one or more problems, in order of their position."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        super().__init__("\n".join(map(str, self.problems)))
