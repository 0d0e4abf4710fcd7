"""The page about the pipeline file keeps up with the models."""

import re
from pathlib import Path

import pytest

from penstock.environments import (
    ApprovalRules,
    Certificate,
    ConfigFile,
    Deploy,
    DriftRules,
    MetricQuestion,
    Migrate,
    ProbeRules,
    RolloutRules,
    StickyUsers,
    WatchRules,
)
from penstock.errors import PipelineError
from penstock.parts import (
    Check,
    Concurrency,
    EvidenceFiles,
    Gpu,
    Matrix,
    Part,
    Push,
    Quarantine,
    RecordedRequests,
    Resources,
    Retry,
    Runtime,
    Triggers,
    When,
)
from penstock.pipelines import LATER, BaselineName, Environment, Gate, Package, Pipeline, Slicing, Step, keys_of
from penstock.sources.definitions import load

PAGE = (Path(__file__).parents[2] / "docs" / "pipeline-file.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[Part]] = {
    "The file": Pipeline,
    "`on`": Triggers,
    "`push`": Push,
    "`concurrency`": Concurrency,
    "`runtime`": Runtime,
    "`steps`": Step,
    "`evidence`": EvidenceFiles,
    "`quarantine`": Quarantine,
    "`resources`": Resources,
    "`gpu`": Gpu,
    "`retry`": Retry,
    "`when`": When,
    "`matrix`": Matrix,
    "`package`": Package,
    "`requests`": RecordedRequests,
    "`gates`": Gate,
    "`slices`": Slicing,
    "Baselines": BaselineName,
    "`environments`": Environment,
    "`deploy`": Deploy,
    "`sticky`": StickyUsers,
    "`tls`": Certificate,
    "`config`": ConfigFile,
    "`approval`": ApprovalRules,
    "`migrate`": Migrate,
    "`probe`": ProbeRules,
    "`rollout`": RolloutRules,
    "`metrics` of a rollout": MetricQuestion,
    "`drift`": DriftRules,
    "`watch`": WatchRules,
    "`check`": Check,
}


def section(title: str) -> str:
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_documented(title: str) -> None:
    """Each section's table has exactly the keys of its model, in their order, with a type and a meaning."""
    part = SECTIONS[title]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+)\|[^|]*\| ([^|]+)\|$", section(title), re.MULTILINE)
    axes = ["NAME"] if part is Matrix else []
    assert [key for key, _, _ in rows] == [*axes, *keys_of(part)]


def test_every_model_has_a_section() -> None:
    """No model that the file is made of is left out."""
    assert set(SECTIONS.values()) == set(Part.__subclasses__()) >= set(LATER)


@pytest.mark.parametrize("title", [title for title in SECTIONS if title != "The file"])
def test_examples_use_existing_keys(title: str) -> None:
    """The example of each section has no key that does not exist, no later key and no wrong value."""
    (example,) = re.findall(r"```yaml\n(.*?)```", section(title), re.DOTALL)
    if SECTIONS[title] in {EvidenceFiles, Resources, Retry, When, Matrix}:
        example = "steps: {a: {run: x, " + example.strip() + "}}\n"
    elif SECTIONS[title] is Quarantine:
        example = "steps: {a: {run: x, report: r, " + example.strip() + "}}\n"
    elif SECTIONS[title] is Gpu:
        example = "steps: {a: {run: x, resources: {" + example.strip() + "}}}\n"
    elif SECTIONS[title] is Slicing:
        example = "gates: {a: {evidence: a, at_least: 1, " + example.strip() + "}}\n"
    elif SECTIONS[title] is BaselineName:
        example = "gates:\n" + "".join(
            f"  g{n}: {{metric: a.b, margin: 1, {line}}}\n" for n, line in enumerate(example.strip().splitlines())
        )
    try:
        load(b"name: x\n" + example.encode(), "example")
    except PipelineError as error:
        sentences = [problem.sentence for problem in error.problems]
    else:
        return
    follows = ("is missing", "add package", "no step is named")
    assert not [sentence for sentence in sentences if not any(part in sentence for part in follows)]


def test_whole_example_loads() -> None:
    """The page's first example is a sound file."""
    example = re.search(r"```yaml\n(name:.*?)```", PAGE, re.DOTALL)
    assert example
    assert load(example[1].encode(), "example").name == "digits"
