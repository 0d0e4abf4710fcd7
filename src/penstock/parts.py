"""The smaller mappings of the pipeline file: runtime, resources, retry, conditions, triggers, matrix and the like."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from penstock.values import (
    LIST,
    Axis,
    AxisValue,
    Branches,
    Bytes,
    CronText,
    Day,
    FilePath,
    Folders,
    Group,
    ImageName,
    Name,
    Number,
    Paths,
    PlainText,
    PyprojectPath,
    PythonVersion,
    Seconds,
    Texts,
    wrong,
)


class Part(BaseModel):
    """What all mappings of the file have in common: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True, serialize_by_alias=True
    )


SOURCES = ("requirements", "lock", "pyproject", "image", "dockerfile")
"""The keys of which a runtime has at most one: what it is made of."""


class Runtime(Part):
    """The Python environment or the image that every step runs in, and what is put on PYTHONPATH."""

    python: PythonVersion | None = Field(default=None, description='The version of Python, quoted: "3.11".')
    requirements: FilePath | None = Field(default=None, description="A requirements file to lock and install.")
    lock: FilePath | None = Field(default=None, description="A lock file to install as it is.")
    pyproject: PyprojectPath | None = Field(
        default=None, description="A pyproject.toml, or its folder, whose dependencies to lock and install."
    )
    image: ImageName | None = Field(default=None, description="A container image, by its name with a tag or digest.")
    dockerfile: FilePath | None = Field(default=None, description="A Dockerfile to build the image from.")
    path: Folders = Field(default=(), description="Folders to put on PYTHONPATH.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [key for key in SOURCES if getattr(self, key) is not None]
        if len(given) > 1:
            words = f"{', '.join(SOURCES[:-1])} and {SOURCES[-1]}"
            raise wrong(f'expected one of {words}, found "{given[0]}" before', given[1])
        return self

    @property
    def is_image(self) -> bool:
        """Whether steps run in a container."""
        return self.image is not None or self.dockerfile is not None


class RecordedRequests(Part):
    """Requests that the served package is asked, with the answers that it should give."""

    file: FilePath = Field(description="The requests, one a line, as JSON.")
    tolerance: Annotated[Number, Field(ge=0)] = Field(
        default=1e-6, description="How far numbers of two answers may differ, of 1 or of their size if larger."
    )
    repeat: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=1, description="How often each is asked after the first time, which warms up."
    )


class EvidenceFiles(Part):
    """Per-example results that a step writes: predictions by id, and the truth they are joined with."""

    predictions: FilePath = Field(description="The file of predictions; with the truth in it where truth is absent.")
    truth: FilePath | None = Field(default=None, description="The file of true values, joined by id.")
    batch: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = Field(
        default=None, description="So many examples are asked at a time, until the verdict of every gate stands."
    )
    at_most: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        default=None, description="So many examples are asked in all, at most. With batch; absent: all."
    )

    @model_validator(mode="after")
    def _fits_batch(self) -> Self:
        if self.at_most is not None and self.batch is None:
            raise wrong('"at_most" needs a batch: add batch: 200', "at_most", lacks=("batch",))
        if self.batch is not None and self.at_most is not None and self.at_most < self.batch:
            raise wrong(f"expected at least one batch of {self.batch:,}, found {self.at_most:,}", "at_most")
        if self.batch is not None and self.truth is None:
            sentence = "batches are drawn from the truth: name its file, as truth: FILE"
            raise wrong(sentence, "batch", lacks=("truth",))
        if self.batch is not None and not self.predictions.endswith((".csv", ".jsonl", ".ndjson")):
            raise wrong("batches are joined line by line: write predictions as .csv, .jsonl or .ndjson", "batch")
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As it was before batches, where there are none: the keys of old results stay what they are."""
        values = handler(self)
        return values if self.batch is not None else {k: v for k, v in values.items() if k not in {"batch", "at_most"}}


class Quarantine(Part):
    """A test whose failure does not count for a while: whose it is, why, and the last day."""

    test: PlainText = Field(description="The test, as SUITE::NAME or in pytest's way: tests/test_a.py::test_b.")
    owner: PlainText = Field(description="Who sees to it.")
    reason: PlainText = Field(description="Why its failure does not count.")
    until: Day = Field(description="The last day on which it does not, as 2026-12-31 (UTC).")


class Check(Part):
    """What the check step leaves out."""

    exclude: Paths = Field(default=(), description="Files that check does not read.")


# --- what a step needs of its machine ------------------------------------------------------------------------------


class Gpu(Part):
    """GPUs that an attempt has for itself."""

    count: Annotated[int, Field(strict=True, ge=0, le=1024)] = Field(default=0, description="How many.")
    type: Name | None = Field(default=None, description="Which kind, as the machine names it.")

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if self.type is not None and self.count == 0:
            raise wrong('"type" needs a count of GPUs: add count: 1', "type", lacks=("count",))
        return self


def _as_count(value: Any) -> Any:
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Resources(Part):
    """What one attempt takes of a machine; it starts when so much is free."""

    cpu: Annotated[float, Field(strict=True, gt=0, le=4096)] = Field(default=1.0, description="Processors.")
    memory: Bytes | None = Field(default=None, description="Memory, such as 2GiB: counted, and the attempt's limit.")
    gpu: Annotated[Gpu, BeforeValidator(_as_count, json_schema_input_type=int | Gpu)] = Field(
        default=Gpu(), description="GPUs, by number or with their type."
    )
    open_files: Annotated[int, Field(strict=True, ge=16, le=1 << 20)] | None = Field(
        default=None, description="How many files one process may have open."
    )


LOOKED_AT = ("file", "http", "https")
"""The kinds of addresses of outside data that Penstock can look at; any other needs a fingerprint of the person's."""

# --- when and how often --------------------------------------------------------------------------------------------

RETRY_CAP = 300.0
"""Seconds: no wait between attempts is longer."""

RetryReason = Literal["exit", "error", "timeout", "oom", "lost", "preempted"]


class Retry(Part):
    """After which ends a step is tried again, how often, and how long the waits are."""

    max: Annotated[int, Field(strict=True, ge=1, le=20)] = Field(description="Attempts beside the first, at most.")
    on: Annotated[tuple[RetryReason, ...], Field(fail_fast=True), LIST, Field(min_length=1)] = Field(
        default=("error", "lost", "preempted"), description="Ends that are tried again; error covers what is no fault."
    )
    backoff: Seconds = Field(default=1.0, description="The first wait; each further one is twice as long, up to 5m.")

    @property
    def reasons(self) -> frozenset[str]:
        """The end reasons of `runs.EndReason`, as text, that are tried again."""
        wider = {"lost", "preempted", "infrastructure"} if "error" in self.on else set()
        return frozenset({*self.on, *wider} - {"error"})

    def wait(self, attempt: int) -> float:
        """Seconds to wait after the given attempt (from 1) until the next one."""
        return float(min(self.backoff * 2 ** (attempt - 1), RETRY_CAP))


def _as_retry(value: Any) -> Any:
    return {"max": value} if isinstance(value, int) and not isinstance(value, bool) else value


RetryOrMax = Annotated[Retry, BeforeValidator(_as_retry, json_schema_input_type=int | Retry)]

_Branches = Annotated[Branches, Field(min_length=1)]
_ChangedPaths = Annotated[Paths, Field(min_length=1)]


class When(Part):
    """The condition of a step: how what it needs ended, on which branches, and which paths changed."""

    outcome: Literal["passed", "failed", "always"] = Field(
        default="passed", description="passed: all it needs is green; failed: something it needs is not; always: both."
    )
    branches: _Branches | None = Field(default=None, description="Only for commits on these branches.")
    paths: _ChangedPaths | None = Field(default=None, description="Only where the change touches one of these paths.")


def _as_when(value: Any) -> Any:
    return {"outcome": value} if isinstance(value, str) else value


WhenOrOutcome = Annotated[
    When, BeforeValidator(_as_when, json_schema_input_type=Literal["passed", "failed", "always"] | When)
]
Trigger = Literal["push", "schedule", "manual", "drift"]


class Concurrency(Part):
    """How many runs of a group go on at once, and what becomes of the others."""

    group: Group = Field(description="The group's name; runs of a project with the same name share its limit.")
    limit: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(default=1, description="Runs at once.")
    older: Literal["wait", "cancel"] = Field(
        default="wait", description="wait: newer runs wait for older ones; cancel: they take their place."
    )
    per: Literal["branch", "project"] = Field(
        default="project", description="Whether each branch has a group of its own."
    )


class Push(Part):
    """Which pushed commits are run."""

    branches: _Branches | None = Field(default=None, description="Only on these branches; absent: on every branch.")
    paths: _ChangedPaths | None = Field(default=None, description="Only where the change touches one of these paths.")


class Triggers(Part):
    """What starts a run beside a person's command."""

    push: Push | None = Field(default=None, description="Pushed commits; {} for all of them.")
    schedule: Annotated[dict[Name, CronText], Field(min_length=1)] | None = Field(
        default=None, description="Times by name, as cron writes them: minute hour day month weekday."
    )
    drift: Texts = Field(default=(), description="Environments whose drift asks for a run of the default branch.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.push is None and self.schedule is None and not self.drift:
            raise wrong("expected push, schedule or drift", lacks=("push", "schedule", "drift"))
        return self


# --- matrix --------------------------------------------------------------------------------------------------------


def _as_values(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, str | int | float) else value


_Values = Annotated[
    tuple[AxisValue, ...],
    Field(fail_fast=True),
    Field(min_length=1),
    BeforeValidator(_as_values, json_schema_input_type=str | float | bool | list[str | float | bool]),
]
_Cells = Annotated[
    tuple[dict[Axis, AxisValue], ...],
    Field(fail_fast=True),
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]


class Matrix(Part):
    """A step for each combination of the axes' values; in the file the axes stand beside include and exclude."""

    axes: dict[Axis, _Values] = Field(default={}, description="Values by axis.")
    include: _Cells = Field(default=(), description="Cells beside the combinations.")
    exclude: _Cells = Field(default=(), description="Combinations that are left out.")

    @model_validator(mode="before")
    @classmethod
    def _axes_apart(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        rest = {key: value[key] for key in ("include", "exclude") if key in value}
        return {"axes": {key: inner for key, inner in value.items() if key not in rest}, **rest}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.axes and not self.include:
            raise wrong("expected an axis such as seed: [0, 1], or include", lacks=("*",))
        return self

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        """As the file has it, so that what was dumped is read back the same way."""
        rest = {"include": self.include, "exclude": self.exclude}
        lists = {key: [dict(cell) for cell in cells] for key, cells in rest.items() if cells}
        return {**{axis: list(values) for axis, values in self.axes.items()}, **lists}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        axes = schema["properties"].pop("axes")
        return {**schema, "additionalProperties": axes["additionalProperties"], "minProperties": 1}
