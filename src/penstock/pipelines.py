"""The pipeline file as frozen values: its schema, what follows from it, and what is wrong with it as a whole.

The models say what one key may hold; `needs`, `stages` and `order` say what follows. What only the whole can
show to be wrong is `flaws.py`; reading bytes, with line and column, is `sources/definitions.py`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from penstock.patterns import branch_matches as branch_matches  # noqa: PLC0414 - part of what the file means
from penstock.patterns import has_wildcard, overlaps, parts_of

# --- interpolation -------------------------------------------------------------------------------------------------

PLACE = re.compile(r"\$\{\{([^{}]{0,200})(\}\})?")


def interpolate(text: str, variables: Mapping[str, str], version: str, commit: str) -> str:
    """The text with `${{ variables.NAME }}`, `${{ version }}` and `${{ commit }}` replaced, once.

    Raises KeyError for any other name; a pipeline that was loaded has none.
    """
    values = {"version": version, "commit": commit, **{f"variables.{k}": v for k, v in variables.items()}}
    return PLACE.sub(lambda match: values[match[1].strip()], text)


# --- what single values may be -------------------------------------------------------------------------------------


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


def _wrong(sentence: str, at: str | None = None, lacks: tuple[str, ...] = ()) -> PydanticCustomError:
    """An error of a value or mapping: `at` is the key it stands at, `lacks` the keys that are absent (`*`: any)."""
    return PydanticCustomError("penstock", "{sentence}", {"sentence": sentence, "at": at, "lacks": lacks})


RESERVED = ("check", "lock", "runtime", "package", "serve")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_DURATION = re.compile(r"(?:([0-9.]+)h)?(?:([0-9.]+)m)?(?:([0-9.]+)s)?(?:([0-9.]+)ms)?")
_YEAR = 31_536_000.0


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _wrong(
            f'"{shortened(name)}" cannot be a name: expected a letter, then at most 63 letters, digits, _ or -'
        )
    return name


def _check_step_name(name: str) -> str:
    if name in RESERVED:
        raise _wrong(f'"{name}" is the name of a step of Penstock\'s own: choose another')
    return _check_name(name)


def _check_project(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise _wrong(f'"{shortened(name)}" cannot be a name: expected at most 64 letters, digits, ., _ or -')
    return name


def _check_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise _wrong(f'"{shortened(name)}" cannot be a variable: expected letters, digits and _, no digit first')
    if name.startswith("PENSTOCK_") or name in {"PORT", "HOME"}:
        raise _wrong(f'the variable "{name}" is set by Penstock: choose another name')
    return name


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _check_value(text: str) -> str:
    if "\0" in text:
        raise _wrong("a variable cannot hold a NUL character")
    return text


def _check_command(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise _wrong(f"expected a command, found {described(text)}")
    return text


def _as_tuple(value: Any) -> Any:
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
        raise _wrong(f"expected a duration such as 90s, 30m or 1h30m (at most a year), found {described(value)}")
    return seconds


def _as_python(value: Any) -> Any:
    if isinstance(value, float) and value in {3.1, 3.2}:
        quoted = f'"{value}0"'
        raise _wrong(f"without quotes this reads as the number {value}: if Python {value}0 is meant, write {quoted}")
    return str(value) if isinstance(value, float) else value


def _check_python(version: str) -> str:
    if not re.fullmatch(r"3\.[0-9]{1,2}(\.[0-9]{1,3})?", version):
        raise _wrong(f'expected a Python version such as "3.11", found {described(version)}')
    return version


def _check_pattern(path: str) -> str:
    """The path in plain form: relative, without `./` in front. Refuses what could lead out of the repository."""
    plain = path
    while plain.startswith("./") and plain != "./":
        plain = plain[2:]
    if fault := _path_fault(plain):
        raise _wrong(f'the path "{shortened(path)}" {fault}')
    return "." if plain == "./" else plain


def _path_fault(path: str) -> str | None:
    parts = path.removesuffix("/").split("/")
    faults = {
        "is empty": not path,
        "is longer than 500 characters": len(path) > 500,
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
        raise _wrong(f'the path "{shortened(path)}" must name one file, without wildcards')
    return path


def _check_folder(path: str) -> str:
    path = _check_pattern(path)
    if has_wildcard(path) or ":" in path:
        raise _wrong(f'the path "{shortened(path)}" must name one folder, without wildcards or ":"')
    return path


def _check_pyproject(path: str) -> str:
    """The file itself, where the folder was named."""
    path = _check_folder(path)
    if path == ".":
        return "pyproject.toml"
    return path if path.endswith(".toml") else f"{path.rstrip('/')}/pyproject.toml"


def _check_health(path: str) -> str:
    if not re.fullmatch(r"/(?!/)[!-~]*", path):
        raise _wrong(f'expected a path that begins with one "/", such as /health, found {described(path)}')
    return path


def _check_branch(pattern: str) -> str:
    parts = pattern.split("/")
    if not pattern or len(pattern) > 250 or "" in parts or any(c.isspace() or ord(c) < 32 for c in pattern):
        raise _wrong(f"expected a branch such as main or release/*, found {described(pattern)}")
    if any("**" in part and part != "**" for part in parts):
        raise _wrong(f'the branch "{shortened(pattern)}" has ** beside other characters: write it as a part of its own')
    return pattern


Name = Annotated[str, AfterValidator(_check_name)]
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
BranchPattern = Annotated[str, AfterValidator(_check_branch)]
_LIST = BeforeValidator(_as_tuple, json_schema_input_type=str | list[str])
Texts = Annotated[tuple[str, ...], _LIST]
Paths = Annotated[tuple[PathPattern, ...], _LIST]
Folders = Annotated[tuple[FolderPath, ...], _LIST]
Number = Annotated[float, Field(strict=True)]
Seconds = Annotated[
    float, Field(strict=True, gt=0, le=_YEAR), BeforeValidator(_as_seconds, json_schema_input_type=float | str)
]
Flag = Annotated[bool, Field(strict=True)]


# --- the schema ----------------------------------------------------------------------------------------------------


class Part(BaseModel):
    """What all mappings of the file have in common: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Runtime(Part):
    """The Python environment of every step, and what is put on PYTHONPATH."""

    python: (
        Annotated[str, AfterValidator(_check_python), BeforeValidator(_as_python, json_schema_input_type=str | float)]
        | None
    ) = Field(default=None, description='The version of Python, quoted: "3.11".')
    requirements: FilePath | None = Field(default=None, description="A requirements file to lock and install.")
    lock: FilePath | None = Field(default=None, description="A lock file to install as it is.")
    pyproject: Annotated[str, AfterValidator(_check_pyproject)] | None = Field(
        default=None, description="A pyproject.toml, or its folder, whose dependencies to lock and install."
    )
    path: Folders = Field(default=(), description="Folders to put on PYTHONPATH.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [k for k in ("requirements", "lock", "pyproject") if getattr(self, k) is not None]
        if len(given) > 1:
            raise _wrong(f'expected one of requirements, lock and pyproject, found "{given[0]}" before', given[1])
        return self


class EvidenceFiles(Part):
    """Per-example results that a step writes: predictions by id, and the truth they are joined with."""

    predictions: FilePath = Field(description="The file of predictions; with the truth in it where truth is absent.")
    truth: FilePath | None = Field(default=None, description="The file of true values, joined by id.")


def _as_evidence(value: Any) -> Any:
    return {"predictions": value} if isinstance(value, str) else value


class Step(Part):
    """One command, what it reads, and what it leaves."""

    name: SkipJsonSchema[str]
    run: CommandText = Field(description="The text that the shell executes in the step's workspace.")
    stage: Literal["build", "test", "deploy"] | None = Field(default=None, description="A label; derived if absent.")
    needs: Texts = Field(default=(), description="Steps, or package, that must be green first.")
    inputs: Paths | None = Field(default=None, description="What the workspace holds; absent: the whole commit.")
    outputs: Paths | None = Field(default=None, description="What leaves the workspace for later steps.")
    metrics: FilePath | None = Field(default=None, description="A JSON file of numbers, flat or nested.")
    report: FilePath | None = Field(default=None, description="A JUnit XML file of test results.")
    benchmark: FilePath | None = Field(default=None, description="A JSON file of benchmark values.")
    evidence: (
        Annotated[EvidenceFiles, BeforeValidator(_as_evidence, json_schema_input_type=str | EvidenceFiles)] | None
    ) = Field(default=None, description="Files of per-example results that Penstock scores.")
    variables: Variables = Field(default={}, description="Variables of this step, over the pipeline's.")
    env: Annotated[tuple[VariableName, ...], _LIST] = Field(
        default=(), description="Variables of the person's environment to pass on."
    )
    timeout: Seconds | None = Field(default=None, description="How long an attempt may take: 30m, 1h30m, or seconds.")
    allow_failure: Flag = Field(default=False, description="Whether a red step only warns.")
    cache: Flag | None = Field(default=None, description="false: run every time, whatever it declares.")
    shell: Literal["sh", "bash", "python"] = Field(default="sh", description="What executes the run text.")

    @property
    def cacheable(self) -> bool:
        """Whether an earlier result may be reused: it declares inputs or outputs, and `cache` is not false."""
        return (self.inputs is not None or self.outputs is not None) and self.cache is not False


class Package(Part):
    """The deployable: model, code, and how it is served."""

    model: Paths | None = Field(default=None, description="The model's files.")
    code: Paths = Field(default=(), description="The code that serves it.")
    serve: CommandText | None = Field(default=None, description="The command that answers on $PORT.")
    health: Annotated[str, AfterValidator(_check_health)] = Field(
        default="/health", description="The path that answers 200 when a real request can be answered."
    )
    start_timeout: Seconds = Field(default=120.0, description="How long a replica may take until it is healthy.")

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not self.model and not self.code:
            raise _wrong(
                "expected model, code or both: a package of nothing cannot be deployed", lacks=("model", "code")
            )
        return self

    @property
    def contents(self) -> tuple[str, ...]:
        """The patterns of all that the package holds."""
        return (*(self.model or ()), *self.code)


_RULES = ("at_least", "at_most", "equals", "not_worse_than")


class Gate(Part):
    """A metric or evidence, and the one rule that it must meet."""

    name: SkipJsonSchema[str]
    metric: str | None = Field(default=None, description="STEP.NAME of a metric or benchmark value.")
    evidence: str | None = Field(default=None, description="The step whose evidence is scored.")
    score: Literal["correct", "absolute_error", "squared_error"] | None = Field(
        default=None, description="How an example is scored; the gate judges the mean. Only with evidence: correct."
    )
    at_least: Number | None = Field(default=None, description="The value must not be below this.")
    at_most: Number | None = Field(default=None, description="The value must not be above this.")
    equals: Number | None = Field(default=None, description="The value must be exactly this.")
    not_worse_than: Literal["champion"] | None = Field(default=None, description="What the value is compared with.")
    margin: Annotated[float, Field(strict=True, ge=0)] | None = Field(
        default=None, description="By how much it may be worse."
    )

    @model_validator(mode="before")
    @classmethod
    def _default_score(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("evidence") is not None and value.get("score") is None:
            return {**value, "score": "correct"}
        return value

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if self.metric is None and self.evidence is None:
            raise _wrong("expected a metric or an evidence to judge, found neither", lacks=("metric", "evidence"))
        if self.metric is not None and self.evidence is not None:
            raise _wrong("expected either metric or evidence, found both", "evidence")
        if self.metric is not None and self.score is not None:
            raise _wrong('"score" belongs to evidence: a metric is judged as it is', "score")
        return self

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [rule for rule in _RULES if getattr(self, rule) is not None]
        if not given:
            raise _wrong("expected a rule: at_least, at_most, equals or not_worse_than", lacks=_RULES)
        if len(given) > 1:
            raise _wrong(f'expected one rule, found "{given[0]}" and "{given[1]}": make them two gates', given[1])
        return self

    @model_validator(mode="after")
    def _fits_champion(self) -> Self:
        if self.margin is not None and self.not_worse_than is None:
            raise _wrong('"margin" belongs to not_worse_than: leave it out', "margin")
        if self.not_worse_than is not None and self.evidence is not None:
            raise _wrong('"not_worse_than" on evidence is not available yet: use it on a metric', "not_worse_than")
        if self.not_worse_than is not None and self.margin is None:
            sentence = '"not_worse_than" needs a margin: by how much it may be worse, such as 0.02'
            raise _wrong(sentence, "not_worse_than", lacks=("margin",))
        return self

    @property
    def rule(self) -> str:
        """The rule in words."""
        if self.margin is not None:
            return f"not worse than the {self.not_worse_than} by more than {self.margin:.12g}"
        words = {"at least": self.at_least, "at most": self.at_most, "exactly": self.equals}
        return next(f"{word} {value:.12g}" for word, value in words.items() if value is not None)

    @property
    def step(self) -> str:
        """The step that the gate needs."""
        return self.evidence if self.evidence is not None else (self.metric or "").partition(".")[0]


class Environment(Part):
    """A place that releases go to."""

    name: SkipJsonSchema[str]
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = Field(description="Where the environment answers.")
    replicas: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(default=1, description="Processes that serve it.")
    needs: Texts = Field(default=(), description="Environments that must be released to first.")
    branches: Annotated[tuple[BranchPattern, ...], _LIST] | None = Field(
        default=None, description="Branches that are released here; absent: the default branch."
    )
    variables: Variables = Field(default={}, description="Variables of this environment, over the pipeline's.")


class Check(Part):
    """What the check step leaves out."""

    exclude: Paths = Field(default=(), description="Files that check does not read.")


def _named(parts: Any) -> Any:
    """Each part under its key, with the key as its name."""
    if not isinstance(parts, dict):
        return parts
    return {key: {**part, "name": key} if isinstance(part, dict) else part for key, part in parts.items()}


def _check_steps(steps: dict[str, Step]) -> dict[str, Step]:
    if not steps:
        raise _wrong("expected at least one step, found none", lacks=("*",))
    return steps


_NAMED = BeforeValidator(_named)


class Pipeline(Part):
    """A parsed pipeline file."""

    name: Annotated[str, AfterValidator(_check_project)] = Field(description="The project's name, for display.")
    runtime: Runtime | None = Field(default=None, description="The Python environment of every step.")
    variables: Variables = Field(default={}, description="Variables of every step and of what is served.")
    steps: Annotated[dict[StepName, Step], _NAMED, AfterValidator(_check_steps)] = Field(description="Steps by name.")
    package: Package | None = Field(default=None, description="What is deployed.")
    gates: Annotated[dict[Name, Gate], _NAMED] = Field(default={}, description="Gates by name.")
    environments: Annotated[dict[Name, Environment], _NAMED] = Field(default={}, description="Environments by name.")
    check: Check = Field(default=Check(), description="Settings of the check step.")
    champion: str | None = Field(default=None, description="The environment whose release is the champion.")


LATER: Mapping[type[Part], frozenset[str]] = {
    Pipeline: frozenset({"on", "source"}),
    Runtime: frozenset({"image", "dockerfile"}),
    Step: frozenset(
        {"resources", "retry", "checkpoint", "secrets", "matrix", "aggregate", "external", "fingerprint", "fresh"}
        | {"when", "coverage", "batch", "host", "image", "runtime", "source", "approval"}
    ),
    Package: frozenset({"runtime"}),
    Gate: frozenset(
        {"better_than", "within", "indifference", "confidence", "slices", "inconclusive", "all_of", "any_of", "reuse"}
        | {"power", "seed"}
    ),
    Environment: frozenset(
        {"secrets", "migrate", "migrate_down", "approval", "probe", "rollout", "host", "as", "deploy", "watch"}
        | {"resources", "runtime"}
    ),
}
"""Keys that the design has and that are refused until they are built."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file, short forms included; an absent value is an absent key."""
    schema = Pipeline.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_nulls(schema)}


def _without_nulls(schema: Any) -> Any:
    """The file has no nulls, and each key's own name says as much as the titles that pydantic makes of it."""
    if isinstance(schema, list):
        return [_without_nulls(item) for item in schema if item != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    kept = {
        k: v for k, v in schema.items() if not (k == "title" and isinstance(v, str)) and (k, v) != ("default", None)
    }
    plain = {key: _without_nulls(value) for key, value in kept.items()}
    choices = plain.get("anyOf", ())
    return {**choices[0], **{k: v for k, v in plain.items() if k != "anyOf"}} if len(choices) == 1 else plain


# --- what follows --------------------------------------------------------------------------------------------------


class Outputs:
    """All outputs of a pipeline, to find whose overlap with a pattern without comparing each with each."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._plain: dict[tuple[str, ...], set[str]] = {}
        self._under: dict[tuple[str, ...], set[str]] = {}
        self._wild: dict[str, set[str]] = {}
        self._all: dict[str, set[str]] = {}
        for step in pipeline.steps.values():
            for pattern in step.outputs or ():
                self._add(step.name, pattern)

    def _add(self, name: str, pattern: str) -> None:
        self._all.setdefault(pattern, set()).add(name)
        if has_wildcard(pattern):
            self._wild.setdefault(pattern, set()).add(name)
            return
        for prefix in _prefixes(pattern):
            self._under.setdefault(prefix, set()).add(name)
        self._plain.setdefault(tuple(parts_of(pattern)), set()).add(name)

    def owners(self, pattern: str) -> set[str]:
        """The steps with an output that overlaps the pattern."""
        wild = self._all if has_wildcard(pattern) else self._wild
        found = {name for other, names in wild.items() if overlaps(pattern, other) for name in names}
        if not has_wildcard(pattern):
            found |= self._under.get(tuple(parts_of(pattern)), set())
            found.update(name for prefix in _prefixes(pattern) for name in self._plain.get(prefix, ()))
        return found


def _prefixes(pattern: str) -> Iterator[tuple[str, ...]]:
    parts = parts_of(pattern)
    return (tuple(parts[:n]) for n in range(len(parts) + 1))


def _reads(step: Step) -> tuple[str, ...]:
    truth = (step.evidence.truth,) if step.evidence is not None and step.evidence.truth is not None else ()
    return (*(step.inputs or ()), *truth)


def needs(pipeline: Pipeline) -> dict[str, frozenset[str]]:
    """What each step, and `package` where there is one, needs directly: as written, and by paths it reads.

    A pattern that overlaps another step's output implies needing that step. Names that do not exist are left out.
    """
    outputs = Outputs(pipeline)
    found: dict[str, frozenset[str]] = {}
    for name, step in pipeline.steps.items():
        known = {n for n in step.needs if n in pipeline.steps or (n == "package" and pipeline.package is not None)}
        implied = {owner for pattern in _reads(step) for owner in outputs.owners(pattern)}
        found[name] = frozenset((known | implied) - {name})
    if pipeline.package is not None:
        found["package"] = frozenset(o for pattern in pipeline.package.contents for o in outputs.owners(pattern))
    return found


def stages(pipeline: Pipeline) -> dict[str, str]:
    """The stage of each step: as written, else build for what the package comes from, else test.

    Without a package, steps whose outputs another step reads are build.
    """
    wanted = needs(pipeline)
    if pipeline.package is not None:
        build = _all_needed(wanted, "package")
    else:
        outputs = Outputs(pipeline)
        build = {o for s in pipeline.steps.values() for p in _reads(s) for o in outputs.owners(p) if o != s.name}
    return {name: step.stage or ("build" if name in build else "test") for name, step in pipeline.steps.items()}


def _all_needed(wanted: Mapping[str, frozenset[str]], name: str) -> set[str]:
    found: set[str] = set()
    queue = [name]
    while queue:
        new = wanted.get(queue.pop(), frozenset()) - found
        found |= new
        queue.extend(new)
    return found


def order(pipeline: Pipeline) -> tuple[str, ...]:
    """All steps, and `package` where there is one, each after what it needs; the file's order decides ties.

    Raises ValueError where steps need each other in a loop; a pipeline that was loaded has none.
    """
    wanted = needs(pipeline)
    names = list(wanted)
    place = {name: n for n, name in enumerate(names)}
    missing = {name: len(wanted[name]) for name in names}
    needed_by: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        for need in wanted[name]:
            needed_by[need].append(name)
    ready = [place[name] for name in names if not missing[name]]
    heapify(ready)
    done: list[str] = []
    while ready:
        done.append(names[heappop(ready)])
        for name in needed_by[done[-1]]:
            missing[name] -= 1
            if not missing[name]:
                heappush(ready, place[name])
    if len(done) < len(names):
        raise ValueError("the steps need each other in a loop")
    return tuple(done)
