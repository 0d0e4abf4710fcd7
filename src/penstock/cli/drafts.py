"""A first pipeline file as text: values quoted so that no YAML misreads them, and a comment beside every key."""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

WIDTH = 110
"""A comment that would make a line longer than this stands above it."""

_PLAIN = re.compile(r"[A-Za-z_/](?:[A-Za-z0-9_./=$+@ -]|:(?=\S))*(?<! )")
_PLAIN_IN_LIST = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*")
_WORDS = frozenset("true false null yes no on off y n".split())  # noqa: SIM905 - names read best as a table


@dataclass(frozen=True, slots=True)
class DraftStep:
    """One step: `why` is the comment at its name, `inputs` None is the whole commit, `hints` are lines of comment."""

    name: str
    why: str
    run: str
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    metrics: str | None = None
    report: str | None = None
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DraftPackage:
    """What is deployed; `serve` and `health` None are what was not found."""

    model: tuple[str, ...]
    code: tuple[str, ...]
    serve: str | None
    health: str | None


@dataclass(frozen=True, slots=True)
class Draft:
    """All that a first file says. Paths and commands start in `prefix`, a folder of the repository or nothing.

    `runtime` holds key, value and comment. `package` None is written as a comment that shows how.
    """

    name: str
    runtime: tuple[tuple[str, str | tuple[str, ...], str], ...]
    steps: tuple[DraftStep, ...]
    package: DraftPackage | None
    prefix: str = field(default="", kw_only=True)

    @property
    def text(self) -> str:
        """The file, ending with a newline."""
        parts = [self._head(), self._runtime(), self._steps(), self._package(), self._gates(), self._environments()]
        return "\n\n".join("\n".join(part) for part in parts) + "\n"

    def _head(self) -> Iterator[str]:
        yield "# A first pipeline file, written by penstock init from what the repository holds. Nothing was executed:"
        yield "# read it, correct it, then penstock check, commit it, penstock run. All keys: penstock check --schema."
        yield from _entry("name", scalar(self.name), "the project's name, for display")

    def _runtime(self) -> Iterator[str]:
        if not self.runtime:
            yield "# runtime:  # the Python environment of every step; without it a step has your PATH"
            yield "#   requirements: requirements.txt  # or lock: FILE, or pyproject: ."
            return
        yield "runtime:  # the Python environment of every step"
        for key, value, comment in self.runtime:
            is_path = key in {"requirements", "lock", "pyproject", "path"}
            values = (value,) if isinstance(value, str) else value
            placed = tuple(map(self._at, values)) if is_path else values
            yield from _entry(key, scalar(placed[0]) if isinstance(value, str) else listed(placed), comment, "  ")

    def _steps(self) -> Iterator[str]:
        yield "# A step finds exactly its inputs in a fresh workspace: add what else it reads. It runs again only when"
        yield "# one of them has changed. Without inputs it finds the whole commit. Outputs must be there when it ends."
        yield "steps:  # what is executed"
        for step in self.steps:
            yield f"  {step.name}:  # {step.why}"
            for key, value, comment in self._step(step):
                yield from _entry(key, value, comment, "    ")
            yield from (f"    # {hint}" for hint in step.hints)

    def _step(self, step: DraftStep) -> Iterator[tuple[str, str, str]]:
        if step.needs:
            yield "needs", listed(step.needs), "what must be green first"
        yield "run", scalar(self._command(step.run)), "executed by the shell"
        if step.inputs is not None:
            yield "inputs", self._paths(step.inputs), "all that it finds"
        if step.outputs:
            yield "outputs", self._paths(step.outputs), "what it leaves to others"
        if step.metrics is not None:
            yield "metrics", scalar(self._at(step.metrics)), "JSON of numbers that gates can judge"
        if step.report is not None:
            yield "report", scalar(self._at(step.report)), "test results, shown per test"

    def _package(self) -> Iterator[str]:
        if self.package is None:
            yield "# package:  # what is deployed; write it out once a step has outputs to deploy"
            yield "#   model: [models/]  # the outputs that are the model"
            yield "#   code: [serve.py]  # the code that serves it"
            yield "#   serve: python serve.py  # a command that answers on $PORT of 127.0.0.1"
            yield "#   health: /health  # answers 200 when a real request can be answered"
            return
        yield "package:  # what is deployed: nothing else is there when it serves"
        if self.package.model:
            yield from _entry("model", self._paths(self.package.model), "the model's files", "  ")
        if self.package.code:
            yield from _entry("code", self._paths(self.package.code), "the code that serves it", "  ")
        if self.package.serve is None:
            yield "  # serve: python serve.py  # a command that answers on $PORT of 127.0.0.1: none was found"
        else:
            serve = scalar(self._command(self.package.serve))
            yield from _entry("serve", serve, "answers on $PORT of 127.0.0.1", "  ")
        if self.package.health is None:
            yield "  # health: /health  # this path is asked (the default): it answers 200 when a real request can be"
        else:
            yield from _entry("health", scalar(self.package.health), "answers 200 when a real request can be", "  ")

    def _gates(self) -> Iterator[str]:
        measured = [step for step in self.steps if step.metrics is not None]
        yield "# gates:  # what must hold before a release; nothing is judged until you say what is good enough"
        for step in measured:
            rule = f"{{metric: {step.name}.NAME, at_least: NUMBER}}"
            file = self._at(step.metrics or "")
            yield f"#   {step.name}_is_good: {rule}  # a name in {file}; put your number here"
        if not measured:
            yield "#   good: {metric: train.NAME, at_least: NUMBER}  # needs metrics: FILE; put your number here"

    def _environments(self) -> Iterator[str]:
        if self.package is not None and self.package.serve is not None and self.package.health is not None:
            yield "environments:  # where releases go, from commits on the default branch"
            yield "  production:  # the name is yours to choose"
            yield "    port: 8800  # where it answers on 127.0.0.1"
            return
        yield "# environments:  # where releases go, from commits on the default branch; needs package with serve"
        yield "#   production: {port: 8800}  # where it answers on 127.0.0.1"

    def _at(self, path: str) -> str:
        if path == ".":
            return self.prefix or "."
        return f"{self.prefix}/{path}" if self.prefix else path

    def _paths(self, paths: Iterable[str]) -> str:
        return listed(map(self._at, paths))

    def _command(self, command: str) -> str:
        return f"cd {argument(self.prefix)} && {command}" if self.prefix else command


def argument(path: str) -> str:
    """A path as one argument of a shell command, never taken for an option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def listed(values: Iterable[str]) -> str:
    """A list on one line."""
    return f"[{', '.join(scalar(v, _PLAIN_IN_LIST) for v in values)}]"


def scalar(text: str, plain: re.Pattern[str] = _PLAIN) -> str:
    """A text as YAML: plain where every YAML reads it as this text, else in double quotes."""
    if plain.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(sign: str) -> str:
    if sign in '"\\':
        return f"\\{sign}"
    return sign if sign.isprintable() else f"\\U{ord(sign):08x}"


def _entry(key: str, value: str, comment: str, indent: str = "") -> Iterator[str]:
    line = f"{indent}{key}: {value}"
    if len(line) + len(comment) + 4 <= WIDTH:
        yield f"{line}  # {comment}"
    else:
        yield f"{indent}# {comment}"
        yield line
