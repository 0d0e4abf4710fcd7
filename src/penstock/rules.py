"""Gates as the file writes them: what is judged, by which rule, and against which baseline.

A gate has one subject and one rule, or is made of other gates. What a rule means is judged elsewhere: `gates.py`,
`comparisons.py` and the files beside them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_serializer, model_validator
from pydantic.json_schema import SkipJsonSchema

from penstock.parts import Part
from penstock.values import Flag, Number, Texts, described, wrong

METRIC = re.compile(r"([^.\[\]]+(?:\[[^\[\]]*\])?)\.(\S*[^\s.])")
"""STEP.NAME or STEP[CELL].NAME."""

SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "metric": ("at_least", "at_most", "equals", "within", "not_worse_than", "better_than"),
    "evidence": ("at_least", "at_most", "equals", "within", "not_worse_than", "better_than", "same_as"),
    "tests": ("no_new_failures",),
    "coverage": ("at_least",),
    "benchmark": ("at_least", "at_most"),
    "model": ("at_least", "at_most", "equals", "within", "one_of"),
}
"""What can be judged, and by which rules."""

WHOLES = ("all_of", "any_of")
COMPARING = ("not_worse_than", "better_than", "ratio_to", "no_new_failures")
"""The keys that name a baseline."""
RULES = tuple(dict.fromkeys(rule for rules in SUBJECTS.values() for rule in rules))
_MODIFIERS: Mapping[str, tuple[str, ...]] = {
    "aggregate": ("metric",),
    "score": ("evidence",),
    "slices": ("evidence",),
    "tolerance": ("evidence",),
    "reuse": ("evidence",),
    "indifference": ("evidence",),
    "of": ("coverage",),
    "ratio_to": ("benchmark",),
    "confidence": ("evidence", "benchmark"),
}
"""Keys that only some subjects have."""

FORMATS = (
    *("safetensors", "onnx", "pytorch", "torchscript", "pickle", "joblib", "npy", "npz", "keras", "hdf5", "gguf"),
    *("tflite", "lightgbm", "xgboost", "catboost", "json", "text", "unknown"),
)
"""What a model's file may be, as `models.py` tells it."""

ScoreName = Annotated[str, Field(pattern=r"^\S(.{0,98}\S)?$")]


# --- single values -------------------------------------------------------------------------------------------------


def _as_range(value: Any) -> Any:
    if not isinstance(value, list | tuple) or [type(n) in {int, float} for n in value] != [True, True]:
        raise wrong("expected two numbers, such as [0.8, 0.9]")
    if not value[0] < value[1]:
        raise wrong("expected the smaller number first, such as [0.8, 0.9]")
    return tuple(value)


Range = Annotated[tuple[float, float], BeforeValidator(_as_range, json_schema_input_type=tuple[float, float])]

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[kKMGT]i?B)")
_UNITS = {"%": 0.01, **{f"{k}B": 1000.0**n for n, k in enumerate("KMGT", 1)}}
_UNITS |= {f"{k}iB": 1024.0**n for n, k in enumerate("KMGT", 1)}


def _as_bound(value: Any) -> Any:
    """A number, or a text such as 85% (0.85) or 200MB (bytes)."""
    if not isinstance(value, str):
        return value
    found = _AMOUNT.fullmatch(value)
    if found is None:
        raise wrong(f"expected a number, or one with a unit such as 85% or 200MB, found {described(value)}")
    unit = found[2].replace("k", "K")
    return float(f"{float(found[1]) * _UNITS[unit]:.15g}")


Bound = Annotated[Number, BeforeValidator(_as_bound, json_schema_input_type=float | str)]

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*%")


def _as_margin(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 <= value < float("inf"):
        return float(value)
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or float(found[1]) > 100:
        words = 'expected a number of 0 or more, or a share of the baseline such as "2%"'
        raise wrong(f"{words}, found {described(value)}")
    return value


Margin = Annotated[float | str, BeforeValidator(_as_margin, json_schema_input_type=float | str)]

_BASELINE = re.compile(r"(champion)(?::(\S+))?|(previous)|(branch|version):(\S+)")
BASELINES = "champion, champion:ENVIRONMENT, previous, branch:NAME, version:NUMBER or {fixed: NUMBER}"


class BaselineName(Part):
    """What a gate compares with: one that is found (`name`), or a number that the file fixes."""

    name: SkipJsonSchema[str] = ""
    fixed: Number | None = Field(default=None, description="The number itself, of a metric.")
    source: str | None = Field(
        default=None, description="Where the fixed number comes from: run, data, hardware and seeds, in a few words."
    )

    @model_validator(mode="after")
    def _named_or_fixed(self) -> Self:
        if not self.name and self.fixed is None:
            raise wrong(f"expected {BASELINES}, found a mapping without fixed", lacks=("fixed",))
        return self

    @model_serializer
    def _short(self) -> Any:
        if self.name:
            return self.name
        return {"fixed": self.fixed} | ({"source": self.source} if self.source is not None else {})

    @property
    def kind(self) -> Literal["champion", "previous", "branch", "version", "fixed"]:
        return "fixed" if not self.name else self.name.partition(":")[0]  # type: ignore[return-value] # as _BASELINE has it

    @property
    def detail(self) -> str:
        """The environment, branch or version that is named; empty where none is."""
        return self.name.partition(":")[2]

    @property
    def words(self) -> str:
        """`the champion`, `the champion of staging`, `the run before`, `branch main`, `version 1.2`, `0.92`."""
        if self.kind == "fixed":
            return f"{self.fixed:.12g}"
        if self.kind == "champion":
            return f"the champion of {self.detail}" if self.detail else "the champion"
        return "the run before" if self.kind == "previous" else f"{self.kind} {self.detail}"


def _as_baseline(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not _BASELINE.fullmatch(value):
        raise wrong(f"expected {BASELINES}, found {described(value)}")
    return {"name": value}


Against = Annotated[BaselineName, BeforeValidator(_as_baseline, json_schema_input_type=str | BaselineName)]


class Slicing(Part):
    """Into which slices evidence is taken apart, and which of them a rule must hold for."""

    by: Annotated[Texts, Field(min_length=1)] = Field(description="Columns whose values name the slices.")
    judge: Literal["each", "worst"] = Field(default="each", description="Whether each slice is judged, or the worst.")
    min_examples: Annotated[int, Field(strict=True, ge=1)] = Field(
        default=1, description="Slices of fewer examples are left out, and told."
    )

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.by)) < len(self.by):
            raise wrong("a column is named twice: each once", "by")
        return self


def _as_slicing(value: Any) -> Any:
    return {"by": value} if isinstance(value, str | list | tuple) else value


def _as_members(value: Any) -> Any:
    """Each member of a whole under its number."""
    if not isinstance(value, list | tuple):
        return value
    return tuple({**m, "name": str(n)} if isinstance(m, dict) else m for n, m in enumerate(value, 1))


# --- a gate --------------------------------------------------------------------------------------------------------


class Gate(Part):
    """A subject and the one rule that it must meet, or several gates as one."""

    name: SkipJsonSchema[str]
    metric: str | None = Field(default=None, description="STEP.NAME of a metric or benchmark value.")
    aggregate: Literal["mean", "min", "max"] | None = Field(
        default=None, description="What is made of the metric's values in the cells of a step with a matrix."
    )
    evidence: str | None = Field(default=None, description="The step whose evidence is scored.")
    score: ScoreName | None = Field(
        default=None,
        description="How an example is scored: correct, absolute_error, squared_error, log_loss, or a numeric column; "
        "the gate judges the mean. Only with evidence: correct.",
    )
    slices: (
        Annotated[Slicing, BeforeValidator(_as_slicing, json_schema_input_type=str | list[str] | Slicing)] | None
    ) = Field(default=None, description="Columns by which evidence is taken apart: the rule holds for each slice.")
    tests: str | None = Field(default=None, description="The step whose test results are judged.")
    coverage: str | None = Field(default=None, description="The step whose coverage is judged.")
    of: Literal["all", "change"] = Field(
        default="all", description="Whether the coverage is of all lines, or of those that the change touches."
    )
    benchmark: str | None = Field(default=None, description="STEP.NAME of a benchmark, judged by a ratio.")
    ratio_to: Against | None = Field(default=None, description="The baseline that the benchmark is divided by.")
    model: Literal["size", "parameters", "format", "risks"] | None = Field(
        default=None, description="What is judged of the package's model files."
    )
    all_of: Annotated[tuple["Gate", ...], BeforeValidator(_as_members)] | None = Field(
        default=None, description="Gates that must all pass."
    )
    any_of: Annotated[tuple["Gate", ...], BeforeValidator(_as_members)] | None = Field(
        default=None, description="Gates of which one must pass."
    )
    at_least: Bound | None = Field(default=None, description="The value must not be below this.")
    at_most: Bound | None = Field(default=None, description="The value must not be above this.")
    equals: Number | None = Field(default=None, description="The value must be exactly this.")
    within: Range | None = Field(default=None, description="The least and the most that the value may be.")
    not_worse_than: Against | None = Field(default=None, description="The baseline that it must not be worse than.")
    better_than: Against | None = Field(default=None, description="The baseline that it must be better than.")
    same_as: str | None = Field(default=None, description="The step whose predictions it must have too.")
    tolerance: Annotated[Number, Field(ge=0)] = Field(
        default=0.0, description="How far numbers may differ and still be the same, of 1 or of their size if larger."
    )
    no_new_failures: Against | None = Field(default=None, description="The baseline whose failed tests may fail.")
    one_of: Annotated[Texts, Field(min_length=1)] | None = Field(
        default=None, description="The formats that are allowed."
    )
    margin: Margin | None = Field(default=None, description="By how much it may be worse, or must be better.")
    indifference: Annotated[Number, Field(gt=0)] | None = Field(
        default=None, description="Up to twice this above the bound a fail does not matter, so that more data decides."
    )
    confidence: Annotated[Number, Field(gt=0.5, lt=1)] | None = Field(
        default=None, description="How sure a verdict must be. Of evidence against a baseline 0.95 if absent."
    )
    inconclusive: Literal["fail", "hold", "warn"] = Field(
        default="fail", description="What an inconclusive verdict does to the run."
    )
    required: Flag = Field(default=False, description="Whether it fails where there is no baseline yet.")
    reuse: Literal["show", "enforce"] = Field(
        default="show", description="Whether decisions on one test set are only counted, or share one risk."
    )

    # --- what is wrong with it

    @model_validator(mode="before")
    @classmethod
    def _default_score(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("evidence") is not None and value.get("score") is None:
            return value if value.get("same_as") is not None else {**value, "score": "correct"}
        return value

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        given = [key for key in (*SUBJECTS, *WHOLES) if getattr(self, key) is not None]
        if not given:
            known = (*SUBJECTS, *WHOLES)
            words = "expected something to judge: metric, evidence, tests, coverage, benchmark, model, all_of or any_of"
            raise wrong(words, lacks=known)
        if len(given) > 1:
            raise wrong(f'expected one thing to judge, found "{given[0]}" and "{given[1]}"', given[1])
        return self

    @model_validator(mode="after")
    def _sound_whole(self) -> Self:
        if not self.is_whole:
            return self
        if not self.members:
            raise wrong("expected at least one gate, found none", self.subject)
        own = ("at_least", "margin", "required", "confidence", "reuse", *RULES, *_MODIFIERS)
        for key in own:
            if key in self.model_fields_set:
                raise wrong(f'"{key}" belongs to one of the gates in {self.subject}: write it there', key)
        for member in self.members:
            if {"inconclusive", "reuse"} & member.model_fields_set and (
                member.inconclusive != "fail" or member.reuse != "show"
            ):
                raise wrong(f'"inconclusive" and "reuse" are not of a gate in {self.subject}', self.subject)
            if any(inner.is_whole for inner in member.members):
                raise wrong(
                    f"expected at most two levels of all_of and any_of: take {self.subject} apart", self.subject
                )
        return self

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.is_whole:
            return self
        given = [rule for rule in RULES if getattr(self, rule) is not None]
        allowed = self.allowed
        if not given:
            words = f"{', '.join(allowed[:-1])} or {allowed[-1]}" if len(allowed) > 1 else allowed[0]
            raise wrong(f"expected a rule: {words}", lacks=allowed)
        if len(given) > 1:
            raise wrong(f'expected one rule, found "{given[0]}" and "{given[1]}": make them two gates', given[1])
        if given[0] not in allowed:
            raise wrong(f'"{given[0]}" is no rule for {self.subject}: expected {" or ".join(allowed)}', given[0])
        return self

    @property
    def allowed(self) -> tuple[str, ...]:
        """The rules that the subject can be judged by."""
        if self.model is not None:
            return ("one_of",) if self.model == "format" else SUBJECTS["model"][:-1]
        return SUBJECTS[self.subject]

    @model_validator(mode="after")
    def _fits_subject(self) -> Self:
        for key, subjects in _MODIFIERS.items():
            if not self.is_whole and key in self.model_fields_set and self._says(key) and self.subject not in subjects:
                raise wrong(self._misplaced(key, subjects), key)
        if self.benchmark is not None and self.ratio_to is None:
            raise wrong(
                "a benchmark is judged by its ratio to a baseline: add ratio_to: champion, or judge it as a metric",
                lacks=("ratio_to",),
            )
        if self.tolerance and self.same_as is None:
            raise wrong('"tolerance" belongs to same_as: leave it out', "tolerance")
        for key in ("score", "slices"):
            if self.same_as is not None and key in self.model_fields_set and self._says(key):
                raise wrong(f'"{key}" does not belong to same_as, which looks at each prediction: leave it out', key)
        return self

    def _says(self, key: str) -> bool:
        """Whether a key says something beside its default."""
        return bool(getattr(self, key) != type(self).model_fields[key].default)

    def _misplaced(self, key: str, subjects: tuple[str, ...]) -> str:
        sentences = {
            "score": '"score" belongs to evidence: a metric is judged as it is',
            "aggregate": '"aggregate" belongs to a metric: name one cell as evidence',
            "confidence": '"confidence" belongs to evidence: a metric is one number, of which nobody is sure',
            "reuse": '"reuse" needs a risk to share: give the gate a confidence, or a champion',
            "indifference": '"indifference" belongs to a bound on evidence with confidence, or to one against the '
            "champion: leave it out",
        }
        plain = f'"{key}" belongs to {" and ".join(subjects)}: leave it out'
        return sentences.get(key, plain) if self.metric is not None or key == "aggregate" else plain

    @model_validator(mode="after")
    def _fits_baseline(self) -> Self:
        if self.against is None and self.margin is not None:
            raise wrong('"margin" belongs to not_worse_than and better_than: leave it out', "margin")
        if self.baseline is None and self.required:
            raise wrong('"required" belongs to not_worse_than and better_than: leave it out', "required")
        if self.not_worse_than is not None and self.margin is None:
            sentence = '"not_worse_than" needs a margin: by how much it may be worse, such as 0.02'
            raise wrong(sentence, "not_worse_than", lacks=("margin",))
        if self.baseline is not None and self.baseline.kind == "fixed" and self.metric is None:
            sentence = (
                "a fixed number is a baseline of a metric: name champion, previous, branch:NAME or version:NUMBER"
            )
            raise wrong(sentence, self.baseline_key)
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """What no value can meet, or every value does: a share beyond 1, a margin of all there is."""
        is_share = self.coverage is not None or (self.evidence is not None and self.score == "correct")
        for key in ("at_least", "at_most", "equals") if is_share else ():
            bound = getattr(self, key)
            if bound is not None and not 0 <= bound <= 1:
                raise wrong(f"expected a share from 0 to 1, such as 0.85 or 85%, found {bound:.12g}", key)
        if is_share and self.within is not None and not 0 <= self.within[0] < self.within[1] <= 1:
            raise wrong("expected shares from 0 to 1, such as [0.8, 0.9]", "within")
        if self.evidence is not None and self.score == "correct" and self.absolute_margin >= 1:
            raise wrong("expected less than 1, which is every answer: three points are 0.03", "margin")
        if self.same_as is not None and self.same_as == self.evidence:
            raise wrong("a step always answers as itself: name the step that asks the trained model", "same_as")
        return self

    @model_validator(mode="after")
    def _fits_interval(self) -> Self:
        if self.confidence is not None and self.equals is not None:
            raise wrong('"confidence" cannot be had in an exact value: write within: [LEAST, MOST]', "confidence")
        if self.confidence is not None and self.same_as is not None:
            raise wrong('"confidence" does not belong to same_as, which looks at each prediction', "confidence")
        if self.indifference is not None and (not self.by_interval or self.within is not None):
            sentence = '"indifference" belongs to a bound on evidence with confidence, or to one against the champion'
            raise wrong(f"{sentence}: leave it out", "indifference")
        if self.indifference is not None and self.relative_margin is not None:
            raise wrong('"indifference" needs a margin in the unit of the score: write one as a number', "indifference")
        if self.reuse == "enforce" and not self.by_interval:
            raise wrong('"reuse" needs a risk to share: give the gate a confidence, or a champion', "reuse")
        most = self.absolute_margin / 2 if self.not_worse_than is not None else None
        if self.indifference is not None and most is not None and self.indifference > most:
            raise wrong(f"expected at most half the margin, {most:.12g}: equal models may not fail", "indifference")
        return self

    # --- what follows from it

    @property
    def is_whole(self) -> bool:
        """Whether it is made of other gates."""
        return self.all_of is not None or self.any_of is not None

    @property
    def members(self) -> tuple["Gate", ...]:
        """The gates that it is made of; none where it is one by itself."""
        return self.all_of or self.any_of or ()

    @property
    def leaves(self) -> Iterator["Gate"]:
        """The gates with a subject and a rule: itself, or those that it is made of."""
        if not self.is_whole:
            yield self
        for member in self.members:
            yield from member.leaves

    @property
    def subject(self) -> str:
        """What is judged: `metric`, `evidence`, … or `all_of`, `any_of`."""
        return next(key for key in (*SUBJECTS, *WHOLES) if getattr(self, key) is not None)

    @property
    def against(self) -> Literal["not_worse_than", "better_than"] | None:
        """The rule that compares with a baseline, None where the rule is a bound."""
        if self.not_worse_than is not None:
            return "not_worse_than"
        return None if self.better_than is None else "better_than"

    @property
    def baseline_key(self) -> str | None:
        """The key that names a baseline; None where none does."""
        return next((key for key in COMPARING if getattr(self, key) is not None), None)

    @property
    def baseline(self) -> BaselineName | None:
        """What it compares with, whatever the key; None where it does not."""
        found: BaselineName | None = None if self.baseline_key is None else getattr(self, self.baseline_key)
        return found

    @property
    def relative_margin(self) -> float | None:
        """The margin as a share of the baseline, 0.02 for `2%`; None where it is in the unit of the value."""
        found = _PERCENT.fullmatch(self.margin) if isinstance(self.margin, str) else None
        return None if found is None else float(f"{float(found[1]) / 100:.15g}")

    @property
    def absolute_margin(self) -> float:
        """The margin in the unit of the value; 0 where there is none, or a relative one."""
        return self.margin if isinstance(self.margin, float) else 0.0

    @property
    def by_interval(self) -> bool:
        """Whether an interval decides: evidence against a baseline, or a bound on it with confidence."""
        return self.evidence is not None and (self.against is not None or self.confidence is not None)

    @property
    def rule(self) -> str:
        """The rule in words."""
        if self.is_whole:
            word = "all of" if self.all_of is not None else "any of"
            return f"{word}: " + "; ".join(f"{m.about} {m.rule}".strip() for m in self.members)
        before = f"{self.aggregate} over cells " if self.aggregate is not None else ""
        before += {"coverage": "of the change " if self.of == "change" else ""}.get(self.subject, "")
        sure = "" if self.confidence is None else f", {100 * self.confidence:.12g} % sure"
        return before + self._claim() + sure + self._sliced()

    @property
    def about(self) -> str:
        """What a member of a whole judges, in a word or two: `train.accuracy`, `evaluate`, `model size`."""
        if self.is_whole:
            return ""
        word = str(getattr(self, self.subject))
        return {"model": f"model {word}", "tests": f"tests of {word}", "coverage": f"coverage of {word}"}.get(
            self.subject, word
        )

    def _claim(self) -> str:
        if self.baseline is not None:
            return self._compared(self.baseline.words)
        if self.same_as is not None:
            off = f" to {self.tolerance:.12g}" if self.tolerance else ""
            return f"the same as {self.same_as}{off}"
        if self.one_of is not None:
            return " or ".join(self.one_of)
        if self.within is not None:
            return f"within {self.within[0]:.12g} to {self.within[1]:.12g}"
        return self._bounded()

    def _bounded(self) -> str:
        words = {"at least": self.at_least, "at most": self.at_most, "exactly": self.equals}
        return next(f"{word} {value:.12g}" for word, value in words.items() if value is not None)

    def _compared(self, baseline: str) -> str:
        if self.no_new_failures is not None:
            return f"no failures that {baseline} has not"
        if self.ratio_to is not None:
            return f"{self._bounded()} times {baseline}"
        margin = self.margin if isinstance(self.margin, str) else f"{self.margin or 0:.12g}"
        if self.not_worse_than is not None:
            return f"not worse than {baseline} by more than {margin}"
        return f"better than {baseline}{f' by {margin}' if self.margin else ''}"

    def _sliced(self) -> str:
        if self.slices is None:
            return ""
        which = "each slice" if self.slices.judge == "each" else "the worst slice"
        return f", in {which} by {' and '.join(self.slices.by)}"

    @property
    def step(self) -> str:
        """The step that the gate needs: a cell where one is named, all cells of it where the gate aggregates.

        Empty for the package's model files and for a gate that is made of others.
        """
        named = self.metric or self.benchmark
        if named is not None:
            found = METRIC.fullmatch(named)
            return found[1] if found else named.partition(".")[0]
        return self.evidence or self.tests or self.coverage or ""

    @property
    def steps(self) -> tuple[str, ...]:
        """All steps, as they are named, whose ends the gate waits for."""
        if self.is_whole:
            return tuple(dict.fromkeys(step for leaf in self.leaves for step in leaf.steps))
        return tuple(step for step in (self.step, self.same_as) if step)
