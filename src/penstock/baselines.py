"""Where a run comes from that others are compared with, and which of the numbers that a file fixes stands.

A fixed number stands once a run of the default branch passed with it. A higher one takes its place by itself; a lower
one only where a person approved it, and every change leaves a record.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from penstock.artifacts import Digest, File, Tree, digest_of
from penstock.pipelines import BaselineName, Gate, Pipeline, Step

DATA = re.compile(
    r"arff|arrow|avi|avro|bmp|bz2|csv|db|feather|flac|gif|gz|h5|hdf5|idx|jpe?g|jsonl|mat|mov|mp3|mp4|ndjson|np[yz]|ogg|orc"
    r"|parquet|png|sqlite|tar|tfrecord|tiff?|tsv|txt|wav|webp|xlsx?|xz|zip|zst"
)
"""Endings of files that hold data."""


# --- words -------------------------------------------------------------------------------------------------------


def named(baseline: BaselineName, version: str) -> str:
    """What was found under a name, in a sentence: `the champion 1.2 of staging`, `branch main (1.2)`, `version 1.2`."""
    if baseline.kind == "champion":
        return f"the champion {version}{f' of {baseline.detail}' if baseline.detail else ''}"
    if baseline.kind == "version" and version.startswith(baseline.detail):
        return f"version {version}"
    return f"{baseline.words} ({version})"


def missing(baseline: BaselineName) -> str:
    """That nothing was found under a name, as a clause."""
    if baseline.kind == "champion":
        return f"there is no {baseline.words.removeprefix('the ')} yet"
    return f"there is no {_runs_of(baseline)} yet"


def none_sound(baseline: BaselineName, run: int, flaw: str) -> str:
    """That no run under a name can be a baseline, as a clause, with what is wrong with the newest."""
    return f"the newest {_runs_of(baseline)} (run {run}) {flaw}, and none before it can be a baseline"


def _runs_of(baseline: BaselineName) -> str:
    return "run before this one" if baseline.kind == "previous" else f"run of {baseline.words}"


# --- where a run comes from ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run comes from: the digest of the data of each step that leaves numbers, the hardware, the seeds."""

    data: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, str] = field(default_factory=dict)


def leaves_numbers(step: Step) -> bool:
    """Whether gates may compare what a step leaves with a baseline's."""
    return any(kept is not None for kept in (step.metrics, step.benchmark, step.evidence))


def data_digest(inputs: Tree, model: Sequence[str] = (), outside: Mapping[str, str] | None = None) -> Digest | None:
    """The digest of the data among a step's files, by their endings, and of the state of outside data.

    Files that `model`'s patterns select are a model, not data. None where there is no data.
    """
    models = inputs.select(model).entries if model else {}
    found = {p: e for p, e in inputs.entries.items() if isinstance(e, File) and is_data(p) and p not in models}
    known = {f"outside {name}": state for name, state in (outside or {}).items()}
    known |= {"files": Tree(found).digest} if found else {}
    return digest_of("data", known) if known else None


def is_data(path: str) -> bool:
    """Whether a file holds data, by its ending."""
    name, dot, ending = path.rpartition("/")[2].rpartition(".")
    return bool(name and dot) and DATA.fullmatch(ending.lower()) is not None


def seeds_of(pipeline: Pipeline, given: str) -> dict[str, str]:
    """The seeds of a run: what every step is given, and the file's variables that speak of a seed."""
    found = {"PENSTOCK_SEED": given, **_seeds(pipeline.variables)}
    for step in pipeline.steps.values():
        found |= {f"{step.name}.{name}": value for name, value in _seeds(step.variables).items()}
    return found


def _seeds(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if "seed" in name.lower()}


def apart(ours: Origin, theirs: Origin | None, steps: Sequence[str]) -> str:
    """In what a run and its baseline differ beside the model, in words for these steps; empty where that is nothing.

    Of a baseline whose origin was not kept nothing is said.
    """
    if theirs is None:
        return ""
    others = [name for name in steps if name in theirs.data or name in ours.data]
    words = ["on other data"] if any(theirs.data.get(name) != ours.data.get(name) for name in others) else []
    known = theirs.hardware.keys() & ours.hardware.keys()
    words += ["on other hardware"] if any(theirs.hardware[key] != ours.hardware[key] for key in known) else []
    return " and ".join(words)


# --- numbers that the file fixes -----------------------------------------------------------------------------------

Event = Literal["set", "raised", "approved", "lowered"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of what a gate's fixed baseline is, `before` the number until then (None for the first).

    `set`, `raised` and `lowered` were made by a run that passed; `approved` by a person, who allows a lower number.
    """

    gate: str
    event: str
    value: float
    before: float | None
    source: str | None
    reason: str | None
    run: int | None
    sha: str | None
    request: int
    actor: str
    at: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands for a gate: the number, where it comes from, and the lowest that the file may say instead.

    `since` is the run that lowered the number last; 0 where none did.
    """

    value: float
    source: str | None
    least: float
    since: int


def standing(changes: Sequence[Change]) -> Standing | None:
    """What stands after these changes of one gate, oldest first; None before the first."""
    made = [change for change in changes if change.event != "approved"]
    if not made:
        return None
    last = made[-1]
    approved = [change.value for change in changes[changes.index(last) :] if change.event == "approved"]
    lowered = [change.run or 0 for change in made if change.event == "lowered"]
    return Standing(last.value, last.source, min([last.value, *approved[-1:]]), max(lowered, default=0))


def adopted(value: float, stands: Standing | None, first: int) -> Event | None:
    """What a passed run of the default branch makes of a number in its file; None where it changes nothing.

    `first` is the first run of its commit: one from before the last lowering does not raise the number again.
    """
    if stands is None:
        return "set"
    if value > stands.value:
        return "raised" if first > stands.since else None
    return "lowered" if stands.least <= value < stands.value else None


def fixed_gates(pipeline: Pipeline) -> Iterator[tuple[str, Gate]]:
    """The gates with a fixed baseline, each under its name; a member of another gate as `whole.1`."""
    for gate in pipeline.gates.values():
        for place, leaf in leaves_of(gate):
            if leaf.baseline is not None and leaf.baseline.kind == "fixed":
                yield place, leaf


def leaves_of(gate: Gate, before: str = "") -> Iterator[tuple[str, Gate]]:
    """The gates with a subject and a rule that a gate is made of, or itself, each by its place: `whole.1`."""
    place = f"{before}{gate.name}"
    if not gate.is_whole:
        yield place, gate
    for member in gate.members:
        yield from leaves_of(member, f"{place}.")
