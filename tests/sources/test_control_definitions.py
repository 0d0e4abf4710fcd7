"""Reading the keys that control runs: triggers, resources, retries, conditions, matrices, secrets and the like."""

import pytest

from penstock.parts import Gpu, Push, Retry, When
from penstock.pipelines import Pipeline
from penstock.sources.definitions import schema
from sources.files import ONE, PACK, STEP, read, refused

CONTROLLED = """\
name: digits
on:
  push: {branches: [main, "release/*"], paths: ["src/**"]}
  schedule: {retrain: "0 3 * * 1", "daily": "0  2 * * *"}
fail_fast: true
concurrency: {group: training, older: cancel, per: branch}
steps:
  train:
    run: python -m digits.train ${{ matrix.seed }}
    outputs: [model/]
    metrics: metrics.json
    resources: {cpu: 1.5, memory: 2GiB, gpu: 1, open_files: 4096}
    timeout: 30m
    retry: {max: 2, on: [error, timeout, preempted], backoff: 10s}
    checkpoint: checkpoints/
    secrets: [HF_TOKEN]
    external: ["s3://bucket/data/"]
    fingerprint: sha256sum /data/list
    fresh: [schedule, drift]
    matrix: {seed: [0, 1, 1e-3], include: [{seed: 010}], exclude: [{seed: 1}]}
  other: {run: x, retry: 3, resources: {gpu: {count: 2, type: a100}, memory: 1048576}, when: always}
  tell: {run: x, needs: train, inputs: [], when: {outcome: failed, branches: main, paths: src/}}
package: {model: model/, serve: x, needs: "train[seed=0]"}
gates:
  all: {metric: train.accuracy, aggregate: mean, at_least: 0.9}
  one: {metric: "train[seed=1e-3].accuracy", at_least: 0.9}
environments:
  production: {port: 8800, secrets: DATABASE_URL}
"""


def test_control_is_read() -> None:
    """Every key is read as it is meant, short forms and sizes included."""
    pipeline = read(CONTROLLED)
    assert pipeline.on is not None
    assert pipeline.on.push == Push(branches=("main", "release/*"), paths=("src/**",))
    assert pipeline.on.schedule == {"retrain": "0 3 * * 1", "daily": "0 2 * * *"}
    assert pipeline.fail_fast is True
    assert pipeline.concurrency is not None
    assert pipeline.concurrency.model_dump() == {"group": "training", "limit": 1, "older": "cancel", "per": "branch"}
    train, other = pipeline.steps["train"], pipeline.steps["other"]
    assert (train.resources.cpu, train.resources.memory, train.resources.open_files) == (1.5, 2 << 30, 4096)
    assert train.resources.gpu == Gpu(count=1)
    assert train.retry == Retry(max=2, on=("error", "timeout", "preempted"), backoff=10)
    assert (train.checkpoint, train.secrets, train.fresh) == ("checkpoints/", ("HF_TOKEN",), ("schedule", "drift"))
    assert (train.external, train.fingerprint) == (("s3://bucket/data/",), "sha256sum /data/list")
    assert train.matrix is not None
    assert train.matrix.axes == {"seed": ("0", "1", "1e-3")}
    assert (train.matrix.include, train.matrix.exclude) == (({"seed": "010"},), ({"seed": "1"},))
    assert other.retry == Retry(max=3)
    assert other.resources.gpu == Gpu(count=2, type="a100")
    assert (other.resources.memory, other.when) == (1 << 20, When(outcome="always"))
    assert pipeline.steps["tell"].when == When(outcome="failed", branches=("main",), paths=("src/",))
    assert pipeline.package is not None
    assert pipeline.package.needs == ("train[seed=0]",)
    assert pipeline.gates["all"].aggregate == "mean"
    assert pipeline.environments["production"].secrets == ("DATABASE_URL",)
    assert Pipeline.model_validate(pipeline.model_dump(mode="json")) == pipeline


def test_defaults() -> None:
    """A step that says nothing takes one processor, is not tried again, and runs where all it needs is green."""
    step = read(ONE).steps["a"]
    assert (step.resources.cpu, step.resources.memory, step.resources.gpu) == (1, None, Gpu(count=0, type=None))
    assert (step.retry, step.when, step.matrix, step.cell) == (None, When(), None, {})


def test_retries() -> None:
    """`error` covers all that is not the step's fault, and waits double up to five minutes."""
    assert Retry(max=1).reasons == {"lost", "preempted", "infrastructure"}
    assert Retry(max=1, on=("exit", "oom")).reasons == {"exit", "oom"}
    assert [Retry(max=20, backoff=2).wait(n) for n in (1, 2, 3, 20)] == [2, 4, 8, 300]


@pytest.mark.parametrize(
    ("written", "size"),
    [
        *[("2GiB", 2 << 30), ("512MiB", 512 << 20), ("1.5GB", 1_500_000_000), ("4096 KiB", 4 << 20)],
        *[("3000kB", 3_000_000), ("2000000B", 2_000_000), ("1TiB", 1 << 40), ("1PB", 10**15), ("0.5GiB", 1 << 29)],
    ],
)
def test_memory(written: str, size: int) -> None:
    """A size is an amount with a unit of 1000 or 1024."""
    assert read(STEP + f"resources: {{memory: {written}}}\n").steps["a"].resources.memory == size


def test_the_schema_has_short_forms() -> None:
    """The schema for editors has the keys of control with their short forms, and none that the file does not have."""
    every = schema()
    assert {"Retry", "Matrix", "Triggers", "Push", "Gpu"} <= set(every["$defs"])
    properties = every["$defs"]["Step"]["properties"]
    assert {"type": "integer"} in properties["retry"]["anyOf"]
    assert not {"name", "cell"} & set(properties)
    assert set(every["$defs"]["Matrix"]["properties"]) == {"include", "exclude"}
    assert "additionalProperties" in every["$defs"]["Matrix"]


# --- what is refused

TRAIN = "name: x\nsteps:\n  train: {run: x, outputs: o/, metrics: m, evidence: e, matrix: {s: [0, 1]}}\n"
MATRIX = "name: x\nsteps:\n  a:\n    run: x\n    matrix: "
GATE = TRAIN + "gates:\n  g: "

MALFORMED: dict[str, tuple[str, list[tuple[int, int, str]]]] = {
    # triggers
    "on as text": (ONE + "on: push\n", [(4, 5, "expected the keys push, schedule and drift")]),
    "on as boolean": (ONE + "on: true\n", [(4, 5, "expected the keys push, schedule and drift, found true")]),
    "on nothing": (ONE + "on: {}\n", [(4, 1, "expected push, schedule or drift")]),
    "on with a typo": (ONE + "on: {pusch: {}}\n", [(4, 6, 'unknown key "pusch" in on: did you mean "push"?')]),
    "on pull requests": (
        ONE + "on: {push: {}, pull_request: true}\n",
        [(4, 16, '"pull_request" is not available yet')],
    ),
    "on drift of nothing": (
        ONE + "on: {push: {}, drift: true}\n",
        [(4, 23, "expected a text or a list of texts, found true")],
    ),
    "on drift of nowhere": (ONE + "on: {drift: production}\n", [(4, 13, 'no environment is named "production"')]),
    "on drift of what is not watched": (
        ONE + "package: {code: x, serve: x}\nenvironments: {production: {port: 1}}\non: {drift: [production]}\n",
        [(6, 14, 'environment "production" does not watch for drift: add drift: FILE to it')],
    ),
    "drift against what is not there": (
        ONE + "package: {code: x/, serve: x}\nenvironments: {production: {port: 1, drift: sample.jsonl}}\n",
        [(5, 45, 'the sample "sample.jsonl" is no file of the package: add it to its code')],
    ),
    "drift with a typo": (
        ONE + "package: {code: x, serve: x}\nenvironments: {p: {port: 1, drift: {reference: x, windows: 200}}}\n",
        [(5, 51, 'unknown key "windows" in environments.p.drift: did you mean "window"?')],
    ),
    "drift of a few": (
        ONE + "package: {code: x, serve: x}\nenvironments: {p: {port: 1, drift: {reference: x, window: 50}}}\n",
        [(5, 59, "expected at least 100, found the number 50")],
    ),
    "drift as number": (
        ONE + "package: {code: x, serve: x}\nenvironments: {p: {port: 1, drift: 3}}\n",
        [(5, 36, "expected a file of the package with a sample of requests, or keys such as reference and window")],
    ),
    "drift of no share": (
        ONE + "package: {code: x, serve: x}\nenvironments: {p: {port: 1, drift: {reference: x, share: 0%}}}\n",
        [(5, 51, "expected a share above 0 %")],
    ),
    "push as list": (ONE + "on: {push: [main]}\n", [(4, 12, "expected a mapping such as {branches: main}, or {}")]),
    "push to nowhere": (ONE + "on: {push: {branches: []}}\n", [(4, 13, "expected at least one entry, found none")]),
    "push to a bad branch": (ONE + "on: {push: {branches: [main, a b]}}\n", [(4, 30, "such as main or release/*")]),
    "push of a bad path": (ONE + "on: {push: {paths: /src}}\n", [(4, 20, "is absolute")]),
    "schedule as text": (ONE + "on: {schedule: '0 3 * * 1'}\n", [(4, 16, "expected names, each with a value")]),
    "schedule of nothing": (ONE + "on: {schedule: {}}\n", [(4, 6, "expected at least one entry, found none")]),
    "schedule with a bad name": (ONE + "on: {schedule: {a b: '0 3 * * 1'}}\n", [(4, 17, '"a b" cannot be a name')]),
    "schedule of four": (ONE + "on: {schedule: {a: '0 3 * *'}}\n", [(4, 20, "expected five fields: minute, hour")]),
    "schedule of too much": (ONE + "on: {schedule: {a: 60 3 * * *}}\n", [(4, 20, 'the minute "60" does not exist')]),
    "schedule of never": (ONE + "on: {schedule: {a: 0 3 31 feb *}}\n", [(4, 20, "this never comes")]),
    "schedule as number": (ONE + "on: {schedule: {a: 5}}\n", [(4, 20, "expected a text, found the number 5")]),
    # concurrency
    "fail_fast as text": (ONE + "fail_fast: yes\n", [(4, 12, 'expected true or false, found the text "yes"')]),
    "concurrency as text": (ONE + "concurrency: a\n", [(4, 14, "expected keys such as group and limit")]),
    "concurrency of nobody": (ONE + "concurrency: {limit: 2}\n", [(4, 1, '"group" is missing: concurrency needs it')]),
    "concurrency of zero": (ONE + "concurrency: {group: a, limit: 0}\n", [(4, 32, "expected at least 1")]),
    "concurrency of a branch": (
        ONE + "concurrency: {group: 'a-${{ branch }}'}\n",
        [(4, 22, "for a group of each branch add per: branch")],
    ),
    "concurrency of a bad group": (ONE + "concurrency: {group: a b}\n", [(4, 22, "expected a group of at most 64")]),
    "older": (ONE + "concurrency: {group: a, older: cancl}\n", [(4, 32, 'did you mean "cancel"?')]),
    "per": (ONE + "concurrency: {group: a, per: commit}\n", [(4, 30, "expected branch or project, found the text")]),
    # resources
    "resources as number": (STEP + "resources: 2\n", [(5, 16, "expected keys such as cpu and memory")]),
    "no cpu": (STEP + "resources: {cpu: 0}\n", [(5, 22, "expected more than 0, found the number 0")]),
    "cpu as text": (STEP + "resources: {cpu: two}\n", [(5, 22, "expected a number")]),
    "memory without unit": (
        STEP + "resources: {memory: 2}\n",
        [(5, 25, "a size from 1MiB to 1PiB, such as 2GiB, found 2")],
    ),
    "memory as fraction": (STEP + "resources: {memory: 1.5}\n", [(5, 25, "expected a size such as 2GiB or 512MiB")]),
    "memory of Kubernetes": (STEP + "resources: {memory: 2Gi}\n", [(5, 25, "expected a size such as 2GiB")]),
    "memory below zero": (STEP + "resources: {memory: -2GiB}\n", [(5, 25, "expected a size such as 2GiB")]),
    "memory without end": (STEP + f"resources: {{memory: {'9' * 200}GiB}}\n", [(5, 25, "from 1MiB to 1PiB")]),
    "memory as list": (STEP + "resources: {memory: [2GiB]}\n", [(5, 25, "expected a size such as 2GiB or 512MiB")]),
    "gpu as text": (STEP + "resources: {gpu: a100}\n", [(5, 22, "expected a number of GPUs, or the keys count and")]),
    "gpu below zero": (STEP + "resources: {gpu: -1}\n", [(5, 22, "expected at least 0, found the number -1")]),
    "gpu type alone": (STEP + "resources: {gpu: {type: a100}}\n", [(5, 23, "needs a count of GPUs: add count: 1")]),
    "gpu with a typo": (STEP + "resources: {gpu: {cout: 1}}\n", [(5, 23, 'did you mean "count"?')]),
    "few open files": (STEP + "resources: {open_files: 3}\n", [(5, 29, "expected at least 16")]),
    "resources with a typo": (STEP + "resources: {mem: 2GiB}\n", [(5, 17, 'unknown key "mem" in steps.a.resources')]),
    # retry
    "retry as boolean": (
        STEP + "retry: true\n",
        [(5, 12, "expected a number of further attempts, or keys such as max")],
    ),
    "retry of zero": (STEP + "retry: 0\n", [(5, 12, "expected at least 1, found the number 0")]),
    "retry of too many": (STEP + "retry: {max: 21}\n", [(5, 18, "expected at most 20")]),
    "retry without max": (STEP + "retry: {on: error}\n", [(5, 5, '"max" is missing: retry needs it')]),
    "retry on nothing": (STEP + "retry: {max: 1, on: []}\n", [(5, 21, "expected at least one entry")]),
    "retry on what": (STEP + "retry: {max: 1, on: [oom, tiemout]}\n", [(5, 31, 'did you mean "timeout"?')]),
    "backoff": (STEP + "retry: {max: 1, backoff: soon}\n", [(5, 30, "expected a duration such as 90s")]),
    "backoff as list": (STEP + "retry: {max: 1, backoff: [1]}\n", [(5, 30, "expected a duration such as 90s")]),
    # the rest of a step
    "checkpoint everywhere": (STEP + "checkpoint: .\n", [(5, 17, "must be a folder below the repository's root")]),
    "checkpoint above": (STEP + "checkpoint: ../c\n", [(5, 17, "leads out of the repository")]),
    "checkpoints": (STEP + "checkpoint: c*/\n", [(5, 17, "must name one folder")]),
    "secret of Penstock": (STEP + "secrets: [A, PENSTOCK_X]\n", [(5, 18, "is set by Penstock")]),
    "secret with a bad name": (STEP + "secrets: a-b\n", [(5, 14, '"a-b" cannot be a variable')]),
    "secret and variable": (STEP + "variables: {A: b}\n    secrets: [A]\n", [(6, 15, "stands in variables too")]),
    "secret and env": (STEP + "env: A\n    secrets: [B, A]\n", [(6, 18, 'the secret "A" stands in env too')]),
    "secret and pipeline": (STEP + "secrets: A\nvariables: {A: b}\n", [(5, 14, "in the pipeline's variables too")]),
    "secret of an environment": (
        PACK + "environments: {s: {port: 80, variables: {A: b}, secrets: [A]}}\n",
        [(5, 59, 'the secret "A" stands in variables too')],
    ),
    "when never": (STEP + "when: never\n", [(5, 11, "expected passed or failed or always, found the text")]),
    "when as list": (
        STEP + "when: [always]\n",
        [(5, 11, "expected passed, failed or always, or keys such as outcome")],
    ),
    "when failed alone": (STEP + "when: failed\n", [(5, 11, "the step needs nothing that could fail")]),
    "when on no branch": (STEP + "when: {branches: []}\n", [(5, 12, "expected at least one entry")]),
    "when with a typo": (STEP + "when: {branch: main}\n", [(5, 12, 'did you mean "branches"?')]),
    "fresh": (STEP + "fresh: [schedule, pull]\n", [(5, 23, "expected push or schedule or manual or drift, found")]),
    "external path": (STEP + "external: /data\n", [(5, 15, "expected an address such as s3://bucket/data/")]),
    "fingerprint of nothing": (STEP + "fingerprint: ' '\n", [(5, 18, "expected a command")]),
    "fingerprint with places": (STEP + "fingerprint: 'x ${{ version }}'\n", [(5, 18, '"${{" is not replaced here')]),
    "cell as key": (STEP + "cell: {a: b}\n", [(5, 5, 'unknown key "cell" in steps.a')]),
    "cell as step": (ONE + "  b[s=1]: {run: x}\n", [(4, 3, "cells are made by the matrix of a step")]),
    "cell of a bad step": (ONE + "  b c[s=1]: {run: x}\n", [(4, 3, "cells are made by the matrix")]),
    # matrix
    "matrix as list": (MATRIX + "[1]\n", [(5, 13, "expected axes, each with a list of values, found a list")]),
    "matrix of nothing": (MATRIX + "{}\n", [(5, 5, "expected an axis such as seed: [0, 1], or include")]),
    "axis without values": (MATRIX + "{s: []}\n", [(5, 14, "expected at least one entry")]),
    "axis as mapping": (MATRIX + "{s: {a: b}}\n", [(5, 17, "expected a text or a list of texts, found a mapping")]),
    "axis with nothing": (MATRIX + "{s: }\n", [(5, 17, '"s" has no value')]),
    "axis with a bad name": (MATRIX + "{a b: [1], s: [1]}\n", [(5, 14, '"a b" cannot be an axis')]),
    "value with a space": (
        MATRIX + "{s: [1, a b]}\n",
        [(5, 21, "expected a value of 1 to 64 letters, digits and signs")],
    ),
    "value with a bracket": (MATRIX + "{s: ['a]']}\n", [(5, 18, 'found the text "a]"')]),
    "value as list": (MATRIX + "{s: [[1]]}\n", [(5, 18, "expected a text, found a list")]),
    "value with nothing": (MATRIX + "{s: [1, ]}\n    needs: b\n", [(6, 12, 'no step is named "b"')]),
    "value twice": (MATRIX + "{s: [1, 2, 1]}\n", [(5, 24, 'the value "1" stands here twice')]),
    "excluded axis": (MATRIX + "{seed: [1], exclude: [{sed: 1}]}\n", [(5, 36, 'did you mean "seed"?')]),
    "excluded nothing": (MATRIX + "{s: [1], exclude: [{s: 2}]}\n", [(5, 32, "this entry excludes nothing")]),
    "excluded as text": (MATRIX + "{s: [1], exclude: s}\n", [(5, 31, "expected a text or a list of texts")]),
    "excluded as texts": (MATRIX + "{s: [1], exclude: [s]}\n", [(5, 32, "expected names, each with a value")]),
    "excluded all": (MATRIX + "{s: [1], exclude: [{s: 1}]}\n", [(5, 22, "nothing is left of the matrix")]),
    "excluded without values": (
        MATRIX + "{s: [1], exclude: [{}]}\n",
        [(5, 22, "nothing is left"), (5, 32, "this entry excludes everything")],
    ),
    "included cell": (MATRIX + "{s: [1], include: [{s: 1}]}\n", [(5, 32, '"a[s=1]" is a cell already')]),
    "included twice": (MATRIX + "{include: [{s: 1}, {s: 1}]}\n", [(5, 32, '"a[s=1]" is a cell already')]),
    "included nothing": (MATRIX + "{s: [1], include: [{}]}\n", [(5, 32, "this cell has no values")]),
    "included list": (MATRIX + "{s: [1], include: [{s: [2]}]}\n", [(5, 36, "expected a text, found a list")]),
    "too many cells": (MATRIX + f"{{s: {list(range(300))}}}\n", [(5, 5, "expected at most 256 cells, found 300")]),
    "axis that does not exist": (
        MATRIX + "{seed: [1]}\n    variables: {A: '${{ matrix.sed }}'}\n",
        [(6, 20, '"${{ matrix.sed }}" names nothing: did you mean "matrix.seed"?')],
    ),
    "axis that one cell lacks": (
        MATRIX.replace("run: x", "run: 'x ${{ matrix.lr }}'") + "{s: [1], lr: [2], include: [{s: 9}]}\n",
        [(4, 10, 'the cell "a[s=9]" has no "lr": give it one')],
    ),
    "axis without a matrix": (ONE + "  b: {run: '${{ matrix.s }}'}\n", [(4, 12, 'step "b" has no matrix')]),
    "axis of the pipeline": (
        ONE + "variables: {A: '${{ matrix.s }}'}\n",
        [(4, 16, '"matrix.s" is known in steps with a matrix only')],
    ),
    "axis with a mistake in the matrix": (
        MATRIX.replace("run: x", "run: 'x ${{ matrix.s }}'") + "{s: [a b]}\n",
        [(5, 18, "expected a value of 1 to 64")],
    ),
    # cells
    "needs an unknown cell": (
        TRAIN + "  b: {run: x, needs: 'train[s=2]'}\n",
        [(4, 22, 'step "train" has no cell "train[s=2]": did you mean "train[s=1]"?')],
    ),
    "needs a cell in other words": (TRAIN + "  b: {run: x, needs: 'train[s= 0]'}\n", [(4, 22, 'mean "train[s=0]"?')]),
    "needs a cell of no matrix": (ONE + "  b: {run: x, needs: 'a[s=1]'}\n", [(4, 22, 'but step "a" has no matrix')]),
    "needs a cell of no step": (ONE + "  b: {run: x, needs: 'c[s=1]'}\n", [(4, 22, 'no step is named "c[s=1]"')]),
    "needs its own cell": (
        MATRIX + "{s: [0, 1]}\n    needs: 'a[s=0]'\n",
        [(6, 12, 'step "a" needs itself')],
    ),
    "needs filled in with what is not there": (
        TRAIN + "  b: {run: x, matrix: {s: [1, 2]}, needs: 'train[s=${{ matrix.s }}]'}\n",
        [(4, 43, 'step "train" has no cell "train[s=2]"')],
    ),
    "needs filled in by a version": (
        TRAIN + "  b: {run: x, matrix: {s: [1]}, needs: 'train[s=${{ version }}]'}\n",
        [(4, 40, '"${{ version }}" names nothing')],
    ),
    "needs filled in without a matrix": (
        TRAIN + "  b: {run: x, needs: 'train[s=${{ matrix.s }}]'}\n",
        [(4, 22, '"matrix.s" names nothing: step "b" has no matrix')],
    ),
    "needs filled in by nothing": (TRAIN + "  b: {run: x, needs: '${{ version }}'}\n", [(4, 22, "names nothing")]),
    "a long text": (
        ONE + f"  b: {{run: '{'${{ variables.A }}' * 2}'}}\nvariables: {{A: {'x' * 600_000}}}\n",
        [(4, 12, "with its places filled in this is longer than 1 MiB")],
    ),
    "cells in a loop": (
        TRAIN.replace("matrix", "needs: b, matrix") + "  b: {run: x, needs: 'train[s=0]'}\n",
        [(3, 64, "in a loop: train needs b needs train")],
    ),
    "reads all cells": (
        TRAIN + "  b: {run: x, needs: train, inputs: [src/, o/x]}\n",
        [(4, 44, 'of step "train", which has cells: name one in needs, of "train[s=0]", "train[s=1]"')],
    ),
    "reads no cell by name": (TRAIN + "  b: {run: x, inputs: o/}\n", [(4, 23, "which has cells: name one in needs")]),
    "reads two cells": (
        TRAIN + "  b: {run: x, needs: ['train[s=0]', 'train[s=1]'], inputs: o/}\n",
        [(4, 60, "which has cells: name one in needs")],
    ),
    "reads the truth of cells": (
        TRAIN + "  b: {run: x, needs: train, inputs: [src/], evidence: {predictions: p, truth: o/t}}\n",
        [(4, 79, "which has cells: name one"), (4, 79, "not among the inputs")],
    ),
    "holds all cells": (
        TRAIN + "  b: {run: x, needs: train}\n",
        [(4, 22, 'without inputs, the workspace would hold the outputs of step "train", which has cells')],
    ),
    "packages all cells": (
        TRAIN + "package: {model: o/, code: src/}\n",
        [(4, 18, '"o/" is an output of step "train", which has cells: name one as needs of the package')],
    ),
    "packages an unknown cell": (
        TRAIN + "package: {model: o/, needs: 'train[s=5]'}\n",
        [(4, 29, 'step "train" has no cell "train[s=5]"')],
    ),
    "packages all by name": (TRAIN + "package: {model: src/, needs: train}\n", [(4, 31, 'such as "train[s=0]"')]),
    "packages a step": (ONE + "package: {model: src/, needs: a}\n", [(4, 31, 'step "a" has no cells: leave it out')]),
    "packages no step": (ONE + "package: {model: src/, needs: 'b[s=1]'}\n", [(4, 31, 'no step is named "b"')]),
    "packages no cell": (ONE + "package: {model: src/, needs: 'a[s=1]'}\n", [(4, 31, 'step "a" has no matrix')]),
    # gates
    "gate of all cells": (
        GATE + "{metric: train.a.b, at_least: 1}\n",
        [(5, 15, 'add aggregate: mean, min or max, or name one, as "train[s=0].a.b"')],
    ),
    "gate of an unknown cell": (GATE + "{metric: 'train[s=7].a', at_least: 1}\n", [(5, 15, 'no cell "train[s=7]"')]),
    "gate of a cell alone": (GATE + "{metric: 'train[s=0]', at_least: 1}\n", [(5, 15, "such as train.accuracy")]),
    "gate of a cell without matrix": (
        GATE.replace("gates", "  b: {run: x, metrics: m}\ngates") + "{metric: 'b[s=0].a', at_least: 1}\n",
        [(6, 15, 'but step "b" has no matrix')],
    ),
    "gate aggregates one cell": (
        GATE + "{metric: 'train[s=0].a', aggregate: max, at_least: 1}\n",
        [(5, 42, '"aggregate" is over all cells, but one cell is named')],
    ),
    "gate aggregates a step": (
        GATE.replace("gates", "  b: {run: x, metrics: m}\ngates") + "{metric: b.a, aggregate: max, at_least: 1}\n",
        [(6, 31, 'but step "b" has no matrix: leave it out')],
    ),
    "gate aggregates somehow": (
        GATE + "{metric: train.a, aggregate: median, at_least: 1}\n",
        [(5, 35, "expected mean or min or max, found the text")],
    ),
    "gate aggregates evidence": (
        GATE + "{evidence: 'train[s=0]', aggregate: min, at_least: 1}\n",
        [(5, 31, '"aggregate" belongs to a metric: name one cell as evidence')],
    ),
    "gate of all evidence": (GATE + "{evidence: train, at_least: 1}\n", [(5, 17, 'name one, such as "train[s=0]"')]),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str) -> None:
    """Each problem is told at its line and column, with what to do, and no other problem is invented."""
    text, expected = MALFORMED[case]
    found = refused(text)
    assert [row[:2] for row in found] == [row[:2] for row in expected], found
    assert all(part in sentence for (_, _, sentence), (_, _, part) in zip(found, expected, strict=True)), found


@pytest.mark.parametrize(
    "text",
    [
        TRAIN + "  b: {run: x, needs: train, inputs: src/}\n",
        TRAIN + "  b: {run: x, needs: 'train[s=1]'}\n",
        TRAIN + "  b: {run: x, needs: 'train[s=1]', inputs: o/x}\n",
        TRAIN + "package: {model: o/, needs: 'train[s=1]'}\n",
        TRAIN + "gates: {g: {evidence: 'train[s=0]', at_least: 1}}\n",
        MATRIX + "{s: 1}\n",
        MATRIX + "{include: [{s: true}, {s: org/model-7B}]}\n",
        ONE + "on: {push: {}}\n",
        ONE + "  b: {run: x, needs: a, when: failed}\n",
    ],
)
def test_sound(text: str) -> None:
    """What is close to a mistake, and none, loads."""
    assert read(text).steps
