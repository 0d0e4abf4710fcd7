"""The environments of the pipeline file: where releases go, and how they get there."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from penstock.parts import Part, Resources
from penstock.values import (
    LIST,
    PLACE,
    Branches,
    CommandText,
    FilePath,
    Flag,
    Name,
    Number,
    PlainCommand,
    PlainText,
    Seconds,
    Share,
    Texts,
    VariableName,
    VariableNames,
    Variables,
    shortened,
    wrong,
)


class Migrate(Part):
    """The command that brings an environment's database to what a package needs, before its replicas start."""

    run: CommandText = Field(description="The command, once per package and environment.")
    timeout: Seconds = Field(default=600.0, description="How long it may take.")
    lock_timeout: Seconds = Field(default=10.0, description="How long a statement may wait for a lock of PostgreSQL.")
    contract: Flag = Field(default=False, description="Whether code from before may not work on what it leaves.")


def _as_migrate(value: Any) -> Any:
    return {"run": value} if isinstance(value, str) else value


Ratio = Annotated[Number, Field(ge=1)]


class ProbeRules(Part):
    """What a release is asked before it gets any traffic, and what must be seen beside the release that serves."""

    requests: FilePath = Field(description="Recorded requests, a file of the package: one a line, as JSON.")
    tolerance: Annotated[Number, Field(ge=0)] = Field(
        default=1e-6, description="How far numbers of two answers may differ, of 1 or of their size if larger."
    )
    repeat: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=1, description="How often each is asked after the first time, which warms up."
    )
    agreement: Share | None = Field(
        default=None, description="The share of answers that must agree with those of the release that serves."
    )
    errors: Share = Field(
        default=0.0, description="The share of requests that may be answered otherwise than recorded."
    )
    latency_p50_ratio: Ratio | None = Field(
        default=None, description="How many times that of the release that serves the median of its latency may be."
    )
    latency_p90_ratio: Ratio | None = Field(default=None, description="The same of the slowest tenth.")
    latency_p99_ratio: Ratio | None = Field(default=None, description="The same of the slowest hundredth.")
    timeout: Seconds = Field(default=600.0, description="How long all of it may take.")


def _as_probe(value: Any) -> Any:
    return {"requests": value} if isinstance(value, str) else value


def _as_shares(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


_SHARES = BeforeValidator(_as_shares, json_schema_input_type=str | float | list[str | float])
_LATENCY = re.compile(r"latency_p([1-9][0-9]?(?:\.[0-9]+)?)_ratio")
"""How a rule on latency is named: `latency_p99_ratio`."""


def quantile_of(rule: str) -> float | None:
    """The quantile that a rule such as `latency_p99_ratio` speaks of; None for any other name."""
    found = _LATENCY.fullmatch(rule)
    return None if found is None else float(found[1]) / 100


def _check_harms(harms: dict[str, float]) -> dict[str, float]:
    for name, ratio in harms.items():
        if name != "error_rate_ratio" and quantile_of(name) is None:
            known = "error_rate_ratio or latency_p99_ratio (or another quantile)"
            raise wrong(f'"{shortened(name)}" is no rule of abort_if: write {known}')
        if ratio <= 1 and name == "error_rate_ratio":
            raise wrong(f"expected a ratio above 1, found {ratio:g}: at 1 chance alone would roll back")
        if ratio < 1:
            raise wrong(f"expected a ratio of at least 1, found {ratio:g}")
    return harms


Harms = Annotated[dict[str, Number], AfterValidator(_check_harms)]


def _check_url(url: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]\S{0,2000}", re.sub(r"\$\{\{[^{}]*\}\}", "x", url)):
        raise wrong(f'expected an address such as https://example.org/health, found "{shortened(url)}"')
    return url


_Url = Annotated[str, AfterValidator(_check_url)]
_VALUE_PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[[0-9]{1,6}\])*")
_QUESTION_PLACES = frozenset({"release", "version", "environment"})


class MetricQuestion(Part):
    """A metric that a service of the person's own tells of a release, and what it may be."""

    url: _Url | None = Field(default=None, description="Where a JSON answer is asked for.")
    value: PlainText | None = Field(default=None, description="Where the number stands in it: data.rates[0].value.")
    prometheus: _Url | None = Field(default=None, description="The address of a Prometheus server.")
    query: PlainText | None = Field(default=None, description="The query that gives the number, in PromQL.")
    at_most: Number | None = Field(default=None, description="The most that it may be.")
    at_least: Number | None = Field(default=None, description="The least that it must be.")
    fails_above: Number | None = Field(default=None, description="Above this it fails; between is undecided.")
    fails_below: Number | None = Field(default=None, description="Below this it fails; between is undecided.")
    authorization: VariableName | None = Field(
        default=None, description="A secret of the environment that is sent as a bearer token."
    )

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        for one, other in (("url", "value"), ("value", "url"), ("prometheus", "query"), ("query", "prometheus")):
            if getattr(self, one) is not None and getattr(self, other) is None:
                raise wrong(f'"{one}" needs a {other}: add {other}', one, lacks=(other,))
        if self.value is not None and _VALUE_PATH.fullmatch(self.value) is None:
            raise wrong(f'expected a path such as data.rates[0].value, found "{shortened(self.value)}"', "value")
        if (self.url is None) is (self.prometheus is None):
            raise wrong("expected either url and value, or prometheus and query", lacks=("url",))
        for key in ("url", "query"):
            for place in PLACE.finditer(getattr(self, key) or ""):
                if place[1].strip() not in _QUESTION_PLACES or not place[2]:
                    names = ", ".join(sorted(_QUESTION_PLACES))
                    raise wrong(f'"{shortened(place[0])}" is no place of a metric: there are {names}', key)
        return self

    @model_validator(mode="after")
    def _has_limits_in_order(self) -> Self:
        if self.at_most is None and self.at_least is None:
            raise wrong("expected at_most, at_least or both", lacks=("at_most",))
        for limit, fails, sign in (("at_most", "fails_above", 1), ("at_least", "fails_below", -1)):
            within, beyond = getattr(self, limit), getattr(self, fails)
            if beyond is not None and (within is None or sign * beyond < sign * within):
                raise wrong(f'"{fails}" needs {limit}, and lies beyond it', fails, lacks=(limit,))
        return self


class RolloutRules(Part):
    """How a release takes over from the one before: by which strategy, and what must be shown on the way."""

    canary: Annotated[tuple[Share, ...], Field(fail_fast=True, min_length=1), _SHARES] | None = Field(
        default=None, description="The shares of the requests that it gets, one after the other."
    )
    shadow: Share | None = Field(default=None, description="The share of the requests that are copied to it.")
    strategy: Literal["blue_green", "recreate"] | None = Field(
        default=None, description="blue_green: all at once; recreate: the old one ends before the new one starts."
    )
    interval: Seconds = Field(default=60.0, description="How long each share lasts at least.")
    deadline: Seconds = Field(default=1800.0, description="How long all shares may last together.")
    error_rate_at_most: Share | None = Field(
        default=0.01, description="An error rate that is safe whatever the release before had."
    )
    abort_if: Harms = Field(default={"error_rate_ratio": 2.0}, description="What harm rolls it back.")
    metrics: dict[Name, MetricQuestion] = Field(default={}, description="Metrics that services of one's own tell.")
    require: Texts = Field(default=(), description="Rules that must be shown to hold before a share widens.")
    confidence: Annotated[Number, Field(ge=0.5, lt=1)] = Field(default=0.95, description="How sure a verdict must be.")
    traffic: Literal["live", "probe"] = Field(
        default="live", description="probe: recorded requests are asked where nobody calls."
    )

    @model_validator(mode="after")
    def _is_one_strategy(self) -> Self:
        given = [key for key in ("canary", "shadow", "strategy") if getattr(self, key) is not None]
        if not given:
            raise wrong("expected canary: [5%, 25%, 50%], shadow: 10%, blue_green or recreate", lacks=("canary",))
        if len(given) > 1:
            raise wrong(f'expected one strategy, found "{given[0]}" before', given[1])
        return self

    @model_validator(mode="after")
    def _widens(self) -> Self:
        widths = [round(share * 10_000) for share in self.canary or ()]
        if widths != sorted(set(widths)) or any(not 0 < width < 10_000 for width in widths):
            raise wrong("expected shares that rise and lie above 0 % and below 100 %, which promotion gives", "canary")
        if self.shadow is not None and round(self.shadow * 10_000) == 0:
            raise wrong("expected a share above 0 %", "shadow")
        if self.interval >= self.deadline:
            found = f"expected less than the deadline of {self.deadline:g} s, found {self.interval:g} s"
            raise wrong(found, "interval")
        return self

    @model_validator(mode="after")
    def _can_widen(self) -> Self:
        if self.error_rate_at_most is None and "error_rate_ratio" not in self.abort_if:
            raise wrong("nothing could ever widen it: write error_rate_at_most, or error_rate_ratio in abort_if")
        if self.error_rate_at_most is not None and not 0 < self.error_rate_at_most < 1:
            raise wrong("expected a share above 0 % and below 100 %", "error_rate_at_most")
        for name in self.metrics:
            if name == "error_rate_ratio" or quantile_of(name) is not None:
                raise wrong(f'"{name}" is a rule of abort_if: call the metric something else', "metrics")
        for name in self.require:
            if name not in {*self.abort_if, *self.metrics} - {"error_rate_ratio"}:
                sentence = f'"{shortened(name)}" is no rule that can be required: write one of abort_if or metrics'
                raise wrong(sentence, "require")
        return self


def _as_rollout(value: Any) -> Any:
    return {"strategy": value} if isinstance(value, str) else value


class ConfigFile(Part):
    """A file of the package whose places are filled in for an environment."""

    template: FilePath = Field(description="The file of the package.")
    to: FilePath | None = Field(default=None, description="What it is called then; absent: as the template.")
    told_as: VariableName | None = Field(default=None, alias="as", description="A variable that holds its path.")

    @property
    def target(self) -> str:
        """The path of the filled-in file, in the folder that PENSTOCK_CONFIG names."""
        return self.to or self.template


class Deploy(Part):
    """How a release comes to a target that Penstock does not serve itself: by a command, judged by a health URL."""

    run: CommandText = Field(description="The command that deploys a package.")
    rollback: CommandText | None = Field(
        default=None, description="The command that goes back to the release before; absent: run, of that release."
    )
    health: Annotated[str, AfterValidator(_check_url)] = Field(
        description="The address that answers 200 when what was deployed works."
    )
    timeout: Seconds = Field(default=600.0, description="How long a command may take, and health after it.")


def _as_configs(value: Any) -> Any:
    entries = value if isinstance(value, list | tuple) else [value]
    return tuple({"template": entry} if isinstance(entry, str) else entry for entry in entries)


_CONFIGS = BeforeValidator(_as_configs, json_schema_input_type=str | ConfigFile | list[str | ConfigFile])


class DriftRules(Part):
    """What is watched for drift: which requests of an environment, against which sample, and when they differ."""

    reference: FilePath = Field(description="The sample: a file of the package, in the format of recorded requests.")
    share: Share = Field(default=0.1, description="The share of the requests that may be looked at.")
    window: Annotated[int, Field(strict=True, ge=100, le=20_000)] = Field(
        default=1000, description="How many requests are compared with the sample at a time."
    )
    interval: Seconds = Field(default=3600.0, description="How long a window lasts at least.")
    confidence: Annotated[Number, Field(ge=0.5, lt=1)] = Field(
        default=0.95, description="How sure it is that nothing is called drift by chance while a release serves."
    )
    psi: Annotated[Number, Field(ge=0, le=100)] = Field(
        default=0.2, description="The least population stability index of a feature that has drifted."
    )
    features: Texts = Field(default=(), description="The features that are compared, by name; absent: all.")

    @model_validator(mode="after")
    def _looks_at_some(self) -> Self:
        if self.share == 0:
            raise wrong("expected a share above 0 %", "share")
        return self


def _as_drift(value: Any) -> Any:
    return {"reference": value} if isinstance(value, str) else value


class WatchRules(Part):
    """What a release must keep to after its promotion, for how long, and what follows where it does not."""

    lasts: Seconds = Field(default=3600.0, alias="for", description="How long it is watched.")
    error_rate_at_most: Share = Field(default=0.01, description="The share of requests that may fail.")
    latency_p50_ratio: Ratio | None = Field(
        default=None, description="How many times that of the release before the median of its latency may be."
    )
    latency_p90_ratio: Ratio | None = Field(default=None, description="The same of the slowest tenth.")
    latency_p99_ratio: Ratio | None = Field(default=None, description="The same of the slowest hundredth.")
    confidence: Annotated[Number, Field(ge=0.5, lt=1)] = Field(default=0.95, description="How sure a breach must be.")
    on_breach: Literal["rollback", "notify"] = Field(
        default="rollback", description="rollback: the release before serves again; notify: it is only told."
    )
    notify: PlainCommand | None = Field(default=None, description="A command that is run once where it was broken.")

    @model_validator(mode="after")
    def _can_be_broken(self) -> Self:
        if not 0 < self.error_rate_at_most < 1:
            raise wrong("expected a share above 0 % and below 100 %", "error_rate_at_most")
        return self


def _as_watch(value: Any) -> Any:
    return {"for": value} if isinstance(value, str | int | float) else value


Role = Literal["developer", "deployer", "admin"]


class ApprovalRules(Part):
    """Who must approve a release before it begins, and how long there is for it."""

    roles: Annotated[tuple[Role, ...], Field(fail_fast=True), LIST, Field(min_length=1)] = Field(
        default=("deployer",), description="Who has one of these roles may approve."
    )
    expires: Seconds = Field(default=86_400.0, description="How long it waits for that.")
    by_another: Flag = Field(default=False, description="Whether it must be somebody else than who asked for the run.")


def _as_approval(value: Any) -> Any:
    return {} if value is True else value


class Reserved(Resources):
    """What each replica of an environment takes of its machine as long as it lives: what is said, and nothing else."""

    cpu: Annotated[float, Field(strict=True, ge=0, le=4096)] = Field(default=0.0, description="Processors.")


SERVING = frozenset(
    {
        "port",
        "replicas",
        "placed_as",
        "rollout",
        "keep",
        "drain",
        "probe",
        "watch",
        "sticky",
        "drift",
        "tls",
        "resources",
    }
)
"""What only an environment can have that Penstock serves itself."""


_TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def _check_token(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise wrong(f'expected a name of letters, digits, -, _ and ., found "{shortened(name)}"')
    return name


Token = Annotated[str, AfterValidator(_check_token)]


class StickyUsers(Part):
    """By what users are known again, so that a rollout keeps each of them at one release."""

    header: Token | None = Field(default=None, description="A header whose value says who asks.")
    cookie: Token | None = Field(default=None, description="A cookie; who has none is given one for 30 days.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.header is None) == (self.cookie is None):
            raise wrong("expected either header: NAME or cookie: NAME", lacks=("header", "cookie"))
        return self


def _check_place(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable() or len(path) > 4000:
        raise wrong(f'expected an absolute path of this machine such as /etc/ssl/own.pem, found "{shortened(path)}"')
    return path


Place = Annotated[str, AfterValidator(_check_place)]


class Certificate(Part):
    """The certificate that an environment answers with: files of the machine, not of the commit."""

    certificate: Place = Field(description="The certificate with its chain, in PEM format.")
    key: Place = Field(description="Its private key, in PEM format and without a passphrase.")


class Environment(Part):
    """A place that releases go to."""

    name: SkipJsonSchema[str]
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = Field(
        default=None, description="Where the environment answers; absent only with deploy."
    )
    replicas: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(default=1, description="Processes that serve it.")
    resources: Reserved | None = Field(default=None, description="What each replica takes of its machine.")
    needs: Texts = Field(default=(), description="Environments that must be released to first.")
    branches: Branches | None = Field(
        default=None, description="Branches that are released here; absent: the default branch."
    )
    variables: Variables = Field(default={}, description="Variables of this environment, over the pipeline's.")
    secrets: VariableNames = Field(
        default=(), description="Secrets that what serves here gets, as variables of these names."
    )
    placed_as: Literal["process", "container"] = Field(
        default="process", alias="as", description="Whether the package is served as it is, or as an image of its own."
    )
    deploy: Deploy | None = Field(
        default=None, description="Commands that deploy to a target which Penstock does not serve itself."
    )
    sticky: StickyUsers | None = Field(
        default=None, description="By what users are known again, so that a rollout keeps each at one release."
    )
    tls: Certificate | None = Field(
        default=None, description="The certificate that the environment answers with; absent: plain HTTP."
    )
    config: Annotated[tuple[ConfigFile, ...], _CONFIGS] = Field(
        default=(), description="Files of the package that are filled in with the environment's values."
    )
    approval: (
        Annotated[ApprovalRules, BeforeValidator(_as_approval, json_schema_input_type=bool | ApprovalRules)] | None
    ) = Field(default=None, description="Who must approve a release before it begins; absent: nobody.")
    migrate: Annotated[Migrate, BeforeValidator(_as_migrate, json_schema_input_type=str | Migrate)] | None = Field(
        default=None, description="A command that runs once per package, before its replicas start."
    )
    migrate_down: CommandText | None = Field(
        default=None, description="The way back of migrate, which runs only where a person asks for it."
    )

    probe: Annotated[ProbeRules, BeforeValidator(_as_probe, json_schema_input_type=str | ProbeRules)] | None = Field(
        default=None, description="Recorded requests that a release must answer well before it gets any traffic."
    )
    rollout: Annotated[RolloutRules, BeforeValidator(_as_rollout, json_schema_input_type=str | RolloutRules)] | None = (
        Field(default=None, description="How a release takes over from the one before; absent: all at once.")
    )
    keep: Annotated[int, Field(strict=True, ge=0, le=16)] = Field(
        default=1, description="How many releases before are kept warm for a rollback."
    )
    drain: Seconds | None = Field(
        default=None, description="How long what a release has begun may take when it goes; absent: 30s."
    )
    drift: Annotated[DriftRules, BeforeValidator(_as_drift, json_schema_input_type=str | DriftRules)] | None = Field(
        default=None, description="Which requests are compared with a sample, to see whether the world has changed."
    )
    watch: Annotated[WatchRules, BeforeValidator(_as_watch, json_schema_input_type=str | float | WatchRules)] | None = (
        Field(default=None, description="What the release keeps to after its promotion, and what follows a breach.")
    )

    @model_validator(mode="after")
    def _serves_or_deploys(self) -> Self:
        if self.deploy is None:
            if self.port is None:
                raise wrong(
                    '"port" is missing: an environment needs it, or deploy: {run: …, health: …}',
                    lacks=("port", "deploy"),
                )
            return self
        for name, field in type(self).model_fields.items():
            if name in SERVING and getattr(self, name) != field.default:
                key = field.alias or name
                raise wrong(f'"{key}" is for what Penstock serves itself: take it out, or take deploy out', key)
        return self

    @model_validator(mode="after")
    def _config_files_are_apart(self) -> Self:
        targets = [file.target for file in self.config]
        for target in targets:
            if targets.count(target) > 1:
                raise wrong(f'two files of config would be "{shortened(target)}": give each a to', "config")
            if any(target.startswith(f"{other}/") for other in targets):
                raise wrong(f'"{shortened(target)}" lies below another file of config: rename one', "config")
        if self.config and self.placed_as == "container":
            raise wrong("an image of its own cannot be given files: take as: container out, or use variables", "config")
        return self

    @model_validator(mode="after")
    def _config_names_are_free(self) -> Self:
        names = [file.told_as for file in self.config if file.told_as is not None]
        for name in names:
            if names.count(name) > 1 or name in self.variables or name in self.secrets:
                raise wrong(f'"{name}" names more than one thing here: choose another for as', "config")
        return self

    @model_validator(mode="after")
    def _has_requests(self) -> Self:
        if self.rollout is not None and self.rollout.traffic == "probe" and self.probe is None:
            sentence = '"traffic: probe" asks the recorded requests of a probe: add probe: FILE to the environment'
            raise wrong(sentence, "rollout", lacks=("probe",))
        return self

    @model_validator(mode="after")
    def _knows_its_tokens(self) -> Self:
        for name, question in (self.rollout.metrics if self.rollout else {}).items():
            if question.authorization is not None and question.authorization not in self.secrets:
                sentence = f'metric "{name}" sends {question.authorization}: list it among secrets'
                raise wrong(sentence, "rollout", lacks=("secrets",))
        return self

    @model_validator(mode="after")
    def _has_a_way_up(self) -> Self:
        if self.migrate_down is not None and self.migrate is None:
            raise wrong('"migrate_down" needs a migrate: add migrate: COMMAND', "migrate_down", lacks=("migrate",))
        return self
