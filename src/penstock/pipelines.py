"""The pipeline file as frozen values: its schema, what follows from it, and what is wrong with it as a whole.

The models say what one key may hold; `needs`, `stages` and `order` say what follows. Single values are `values.py`,
the smaller mappings `parts.py`. `matrices.py` puts cells in the place of a step with a matrix. What only the whole can
show to be wrong is `flaws.py`; reading bytes, with line and column, is `sources/definitions.py`.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from penstock.environments import Environment as Environment  # noqa: PLC0414 - part of what the file means
from penstock.parts import (
    Check,
    Concurrency,
    EvidenceFiles,
    Matrix,
    Part,
    Quarantine,
    RecordedRequests,
    Resources,
    RetryOrMax,
    Runtime,
    Trigger,
    Triggers,
    When,
    WhenOrOutcome,
)
from penstock.patterns import branch_matches as branch_matches  # noqa: PLC0414 - part of what the file means
from penstock.patterns import has_wildcard, overlaps, parts_of
from penstock.rules import METRIC as METRIC  # noqa: PLC0414 - part of what the file means
from penstock.rules import BaselineName as BaselineName  # noqa: PLC0414 - the same
from penstock.rules import Gate as Gate  # noqa: PLC0414 - the same
from penstock.rules import Slicing as Slicing  # noqa: PLC0414 - the same
from penstock.values import (
    LIST,
    Addresses,
    CheckpointPath,
    CommandText,
    Flag,
    HealthPath,
    ImageName,
    Name,
    Paths,
    PlainCommand,
    ProjectName,
    Seconds,
    StepName,
    Texts,
    VariableNames,
    Variables,
    cell_name,
    family_of,
    shortened,
    wrong,
)
from penstock.values import PLACE as PLACE  # noqa: PLC0414 - where texts are filled in
from penstock.values import RESERVED as RESERVED  # noqa: PLC0414 - what no step can be named
from penstock.values import FilePath as FilePath  # noqa: PLC0414 - what the file can name
from penstock.values import FolderPath as FolderPath  # noqa: PLC0414 - the same

# --- interpolation -------------------------------------------------------------------------------------------------


def interpolate(text: str, variables: Mapping[str, str], version: str, commit: str) -> str:
    """The text with `${{ variables.NAME }}`, `${{ version }}` and `${{ commit }}` replaced, once.

    Raises KeyError for any other name; a pipeline that was loaded has none.
    """
    values = {"version": version, "commit": commit, **{f"variables.{k}": v for k, v in variables.items()}}
    return PLACE.sub(lambda match: values[match[1].strip()], text)


# --- the schema ----------------------------------------------------------------------------------------------------


def _as_evidence(value: Any) -> Any:
    return {"predictions": value} if isinstance(value, str) else value


def _as_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_PYTEST = re.compile(r"(?<![\w-])py\.?test(?![\w-])")


class Step(Part):
    """One command, what it reads, and what it leaves. `cell` is set where a matrix was expanded."""

    name: SkipJsonSchema[str]
    cell: SkipJsonSchema[dict[str, str]] = Field(default_factory=dict)
    run: CommandText = Field(description="The text that the shell executes in the step's workspace.")
    stage: Literal["build", "test", "deploy"] | None = Field(default=None, description="A label; derived if absent.")
    needs: Texts = Field(default=(), description="Steps, or package, that must be green first.")
    inputs: Paths | None = Field(default=None, description="What the workspace holds; absent: the whole commit.")
    outputs: Paths | None = Field(default=None, description="What leaves the workspace for later steps.")
    metrics: FilePath | None = Field(default=None, description="A JSON file of numbers, flat or nested.")
    report: FilePath | None = Field(default=None, description="A JUnit XML file of test results.")
    coverage: FilePath | None = Field(default=None, description="A Cobertura XML or LCOV file of lines that ran.")
    benchmark: FilePath | None = Field(default=None, description="A JSON file of benchmark values.")
    evidence: (
        Annotated[EvidenceFiles, BeforeValidator(_as_evidence, json_schema_input_type=str | EvidenceFiles)] | None
    ) = Field(default=None, description="Files of per-example results that Penstock scores.")
    quarantine: Annotated[
        tuple[Quarantine, ...],
        BeforeValidator(_as_list, json_schema_input_type=list[Quarantine]),
    ] = Field(default=(), description="Tests whose failure does not make the step red for a while.")
    variables: Variables = Field(default_factory=dict, description="Variables of this step, over the pipeline's.")
    env: VariableNames = Field(default=(), description="Variables of the person's environment to pass on.")
    secrets: VariableNames = Field(default=(), description="Secrets that this step gets, as variables of these names.")
    resources: Resources = Field(default=Resources(), description="What an attempt takes of its machine.")
    timeout: Seconds | None = Field(default=None, description="How long an attempt may take: 30m, 1h30m, or seconds.")
    retry: RetryOrMax | None = Field(default=None, description="After which ends it is tried again, and how often.")
    checkpoint: CheckpointPath | None = Field(default=None, description="A folder that is kept between attempts.")
    when: WhenOrOutcome = Field(default=When(), description="The condition under which it runs.")
    matrix: Matrix | None = Field(default=None, description="Values for each combination of which it runs.")
    external: Addresses = Field(default=(), description="Addresses of outside data that its result depends on.")
    fingerprint: PlainCommand | None = Field(
        default=None, description="A command whose output stands for outside data that its result depends on."
    )
    fresh: Annotated[tuple[Trigger, ...], Field(fail_fast=True), LIST] = Field(
        default=(), description="Triggers under which it, and all after it, reuse no result."
    )
    allow_failure: Flag = Field(default=False, description="Whether a red step only warns.")
    cache: Flag | None = Field(default=None, description="false: run every time, whatever it declares.")
    shell: Literal["sh", "bash", "python"] = Field(default="sh", description="What executes the run text.")
    network: Flag = Field(default=True, description="false: no network, where the runtime is an image.")

    @model_validator(mode="after")
    def _named_by_cell(self) -> Self:
        if self.cell or self.name.endswith("]"):
            sound = self.cell and self.matrix is None and self.name == cell_name(family_of(self.name), self.cell)
            if not sound:
                raise wrong(f'"{shortened(self.name)}" cannot be a name: cells are made by the matrix of a step')
        return self

    @model_validator(mode="after")
    def _quarantines_tests(self) -> Self:
        if self.quarantine and not self.tells_tests:
            sentence = '"quarantine" needs test results: add report: FILE to the step, or have it run pytest'
            raise wrong(sentence, "quarantine", lacks=("report",))
        return self

    @property
    def runs_pytest(self) -> bool:
        """Whether its text has the word pytest, so that its results may be had without a file."""
        return self.report is None and _PYTEST.search(self.run) is not None

    @property
    def tells_tests(self) -> bool:
        """Whether results of tests may be known of it."""
        return self.report is not None or self.runs_pytest

    @property
    def family(self) -> str:
        """The step of the file that this one is a cell of; its own name where it is none."""
        return family_of(self.name)

    @property
    def cacheable(self) -> bool:
        """Whether an earlier result may be reused: it declares inputs or outputs, and `cache` is not false."""
        return (self.inputs is not None or self.outputs is not None) and self.cache is not False


def _as_requests(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


class Package(Part):
    """The deployable: model, code, and how it is served."""

    model: Paths | None = Field(default=None, description="The model's files.")
    code: Paths = Field(default=(), description="The code that serves it.")
    serve: CommandText | None = Field(default=None, description="The command that answers on $PORT.")
    health: HealthPath = Field(
        default="/health", description="The path that answers 200 when a real request can be answered."
    )
    start_timeout: Seconds = Field(default=120.0, description="How long a replica may take until it is healthy.")
    needs: Texts = Field(default=(), description="The cell, of a step with a matrix, that its files come from.")
    base: ImageName | None = Field(
        default=None, description="The image that it stands on as an image; absent: the runtime's, else Python's own."
    )
    requests: (
        Annotated[RecordedRequests, BeforeValidator(_as_requests, json_schema_input_type=str | RecordedRequests)] | None
    ) = Field(default=None, description="Recorded requests that a replica of it is asked before gates judge.")

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not self.model and not self.code:
            raise wrong(
                "expected model, code or both: a package of nothing cannot be deployed", lacks=("model", "code")
            )
        return self

    @property
    def contents(self) -> tuple[str, ...]:
        """The patterns of all that the package holds."""
        return (*(self.model or ()), *self.code)


def _named(parts: Any) -> Any:
    """Each part under its key, with the key as its name."""
    if not isinstance(parts, dict):
        return parts
    return {key: {**part, "name": key} if isinstance(part, dict) else part for key, part in parts.items()}


def _check_steps(steps: dict[str, Step]) -> dict[str, Step]:
    if not steps:
        raise wrong("expected at least one step, found none", lacks=("*",))
    return steps


_NAMED = BeforeValidator(_named)


class Pipeline(Part):
    """A parsed pipeline file."""

    name: ProjectName = Field(description="The project's name, for display.")
    on: Triggers | None = Field(default=None, description="What starts a run beside a person's command.")
    runtime: Runtime | None = Field(default=None, description="The Python environment of every step.")
    variables: Variables = Field(default={}, description="Variables of every step and of what is served.")
    steps: Annotated[dict[StepName, Step], _NAMED, AfterValidator(_check_steps)] = Field(description="Steps by name.")
    package: Package | None = Field(default=None, description="What is deployed.")
    gates: Annotated[dict[Name, Gate], _NAMED] = Field(default={}, description="Gates by name.")
    environments: Annotated[dict[Name, Environment], _NAMED] = Field(default={}, description="Environments by name.")
    check: Check = Field(default=Check(), description="Settings of the check step.")
    champion: str | None = Field(default=None, description="The environment whose release is the champion.")
    fail_fast: Flag = Field(default=False, description="Whether the first red step ends the run's other steps.")
    concurrency: Concurrency | None = Field(default=None, description="How many runs go on at once.")


LATER: Mapping[type[Part], frozenset[str]] = {
    Pipeline: frozenset({"source"}),
    Step: frozenset({"batch", "host", "image", "runtime", "source", "approval"}),
    Package: frozenset({"runtime"}),
    Gate: frozenset({"power", "seed"}),
    Environment: frozenset({"host", "runtime"}),
    Triggers: frozenset({"pull_request"}),
}
"""Keys that the design has and that are refused until they are built."""

HIDDEN: Mapping[type[Part], frozenset[str]] = {
    Step: frozenset({"name", "cell"}),
    Gate: frozenset({"name"}),
    Environment: frozenset({"name"}),
    BaselineName: frozenset({"name"}),
    Matrix: frozenset({"axes"}),
}
"""Fields that the file writes in another way."""


def keys_of(part: type[Part]) -> tuple[str, ...]:
    """The keys that the file may have in a mapping, in their order."""
    fields = part.model_fields.items()
    return tuple(field.alias or name for name, field in fields if name not in HIDDEN.get(part, ()))


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file, short forms included; an absent value is an absent key."""
    schema = Pipeline.model_json_schema(mode="validation")
    schema["$defs"] = {name: schema["$defs"][name] for name in _named_in(schema, schema["$defs"])}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_nulls(schema)}


def _named_in(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    """The definitions that are used, directly or not."""
    queue: list[Any] = [{key: value for key, value in schema.items() if key != "$defs"}]
    used: set[str] = set()
    while queue:
        item = queue.pop()
        queue += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        name = str(item.get("$ref", "")).rpartition("/")[2] if isinstance(item, dict) else ""
        if name and name not in used:
            used.add(name)
            queue.append(definitions[name])
    return [name for name in definitions if name in used]


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


MAX_COMPARISONS = 100_000
MAX_NEEDS = 250_000
MAX_OVERLAPS = 150_000


class TooLargeError(ValueError):
    """The pipeline has too many paths or needs to be worked out in time; one that was loaded never has."""


class Outputs:
    """All outputs of a pipeline, to find whose overlap with a pattern without comparing each with each.

    They are sorted by the folders before their first wildcard. What can overlap a pattern has as many of the same
    folders, or all of them: it lies at a folder above, or in the range below. Cells of a step have the same outputs
    and count as that step.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._owners: dict[str, dict[str, None]] = {}
        families: set[str] = set()
        for step in pipeline.steps.values():
            if step.outputs and (family := step.family) not in families:
                families.add(family)
                for pattern in step.outputs:
                    self._owners.setdefault(pattern, {})[family] = None
        at: dict[str, list[str]] = {}
        for pattern in self._owners:
            at.setdefault(_folders(pattern), []).append(pattern)
        self._folders = sorted(at)
        self._patterns = [at[folders] for folders in self._folders]
        self._above = _nearest_above(self._folders)
        self._found: dict[str, frozenset[str]] = {}
        self._comparisons = self._overlaps = 0

    def owners(self, pattern: str) -> frozenset[str]:
        """The steps with an output that overlaps the pattern, cells by their step; TooLargeError after too many."""
        found = self._found.get(pattern)
        if found is None:
            near = self._near(pattern)
            sure = not has_wildcard(pattern)
            met = [other for other in near if (sure and not has_wildcard(other)) or self._meet(pattern, other)]
            found = self._found[pattern] = frozenset(name for other in met for name in self._owners[other])
            self._overlaps += len(found)
            if self._overlaps > MAX_OVERLAPS:
                raise TooLargeError(f"paths overlap outputs more than {MAX_OVERLAPS:,} times: give steps folders apart")
        return found

    def read_by(self, patterns: Iterable[str]) -> set[str]:
        """The steps with an output that overlaps any of the patterns."""
        return {name for pattern in patterns for name in self.owners(pattern)}

    def _meet(self, pattern: str, other: str) -> bool:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            sentence = f"the paths with wildcards take more than {MAX_COMPARISONS:,} comparisons with outputs"
            raise TooLargeError(f"{sentence}: name folders instead")
        return overlaps(pattern, other)

    def _near(self, pattern: str) -> Iterator[str]:
        """The patterns in the same folder and below it, then those in the folders above."""
        folders = _folders(pattern)
        start = bisect_left(self._folders, folders)
        end = bisect_left(self._folders, f"{folders[:-1]}0") if folders else len(self._folders)  # 0 comes after /
        for place in range(start, end):
            yield from self._patterns[place]
        place = start - 1
        while place >= 0:
            if folders.startswith(self._folders[place]):
                yield from self._patterns[place]
            place = self._above[place]


def _nearest_above(folders: Sequence[str]) -> list[int]:
    """For each of the sorted folders the place of the nearest that it lies in, else -1.

    Whatever a folder lies in, the one sorted before it lies in too, or is it.
    """
    above: list[int] = []
    for n, folder in enumerate(folders):
        place = n - 1
        while place >= 0 and not folder.startswith(folders[place]):
            place = above[place]
        above.append(place)
    return above


def _folders(pattern: str) -> str:
    """The parts before the first with a wildcard, each with a `/` behind it: sorted, what lies below is a range."""
    parts = parts_of(pattern)
    if has_wildcard(pattern):
        parts = parts[: next(n for n, part in enumerate(parts) if has_wildcard(part))]
    return "/".join([*parts, ""])


def reads(step: Step) -> tuple[str, ...]:
    """The patterns of what a step reads: its inputs, and the truth of its evidence."""
    truth = (step.evidence.truth,) if step.evidence is not None and step.evidence.truth is not None else ()
    return (*(step.inputs or ()), *truth)


def needs(pipeline: Pipeline, outputs: Outputs | None = None) -> dict[str, frozenset[str]]:
    """What each step, and `package` where there is one, needs directly: as written, and by paths it reads.

    A pattern that overlaps another step's output implies needing that step; where that step has cells, the one that
    is named is needed. Names that do not exist are left out, a cell that is not expanded yet counts as its step.
    `outputs` are those of the pipeline, where they are at hand. Raises TooLargeError for one that was never loaded.
    """
    outputs = outputs or Outputs(pipeline)
    steps = pipeline.steps
    found: dict[str, frozenset[str]] = {}
    implied: dict[str, set[str]] = {}
    count = 0
    for name, step in steps.items():
        family = step.family
        if family not in implied:
            implied[family] = {owner for owner in outputs.read_by(reads(step)) if owner in steps}
        found[name] = frozenset({*_written(pipeline, step.needs), *implied[family]} - {name})
        count += len(found[name])
        if count > MAX_NEEDS:
            raise TooLargeError(f"the steps need each other more than {MAX_NEEDS:,} times: name fewer inputs or needs")
    if pipeline.package is not None:
        owners = (owner for owner in outputs.read_by(pipeline.package.contents) if owner in steps)
        found["package"] = frozenset({*owners, *_written(pipeline, pipeline.package.needs)})
    return found


def request_needs(pipeline: Pipeline, outputs: Outputs | None = None) -> frozenset[str]:
    """The step that writes the package's recorded requests, or the cell of it that the package names; else none."""
    package = pipeline.package
    if package is None or package.requests is None:
        return frozenset()
    families = (outputs or Outputs(pipeline)).owners(package.requests.file)
    cells = (name for name in package.needs if family_of(name) in families)
    return frozenset(name for name in (*families, *cells) if name in pipeline.steps)


def _written(pipeline: Pipeline, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name in pipeline.steps or (name == "package" and pipeline.package is not None):
            yield name
        elif family_of(name) in pipeline.steps:
            yield family_of(name)


def stages(
    pipeline: Pipeline, wanted: Mapping[str, frozenset[str]] | None = None, outputs: Outputs | None = None
) -> dict[str, str]:
    """The stage of each step: as written, else build for what the package comes from, else test.

    Without a package, steps whose outputs another step reads are build. All cells of a step have the same stage.
    `wanted` is what `needs` says of the pipeline, and `outputs` are its own, where they are at hand.
    """
    steps = pipeline.steps.values()
    if pipeline.package is not None:
        build = {family_of(name) for name in _all_needed(needs(pipeline) if wanted is None else wanted, "package")}
    else:
        outputs = outputs or Outputs(pipeline)
        read = {step.family: step for step in steps}
        build = {owner for name, step in read.items() for owner in outputs.read_by(reads(step)) if owner != name}
    return {step.name: step.stage or ("build" if step.family in build else "test") for step in steps}


def _all_needed(wanted: Mapping[str, frozenset[str]], name: str) -> set[str]:
    found: set[str] = set()
    queue = [name]
    while queue:
        new = wanted.get(queue.pop(), frozenset()) - found
        found |= new
        queue.extend(new)
    return found


def order(pipeline: Pipeline, wanted: Mapping[str, frozenset[str]] | None = None) -> tuple[str, ...]:
    """All steps, and `package` where there is one, each after what it needs; the file's order decides ties.

    `wanted` is what `needs` says of the pipeline, where it is at hand. Raises ValueError where steps need each other
    in a loop; a pipeline that was loaded has none.
    """
    wanted = needs(pipeline) if wanted is None else wanted
    done = sequence(wanted)
    if len(done) < len(wanted):
        raise ValueError("the steps need each other in a loop")
    return tuple(done)


def sequence(wanted: Mapping[str, Iterable[str]]) -> list[str]:
    """The names, each after what it needs, else in their order; without those in a loop, or after one."""
    names = list(wanted)
    place = {name: n for n, name in enumerate(names)}
    missing = [0] * len(names)
    needed_by: list[list[int]] = [[] for _ in names]
    for n, name in enumerate(names):
        for need in wanted[name]:
            missing[n] += 1
            needed_by[place[need]].append(n)
    ready = [n for n, count in enumerate(missing) if not count]
    heapify(ready)
    done: list[str] = []
    while ready:
        n = heappop(ready)
        done.append(names[n])
        for other in needed_by[n]:
            missing[other] -= 1
            if not missing[other]:
                heappush(ready, other)
    return done
