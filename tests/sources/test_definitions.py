"""Reading `penstock.yaml`: what loads, and what is refused where and how."""

from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.environments import ConfigFile, Deploy, ProbeRules, WatchRules
from penstock.errors import PipelineError
from penstock.pipelines import Pipeline
from penstock.probes import Rules
from penstock.sources.definitions import MAX_PROBLEMS, load, schema
from sources.files import ONE, PACK, STEP, read, refused

EXAMPLE = """\
name: digits
runtime: {python: "3.11", requirements: requirements.txt, path: [src]}
variables: {EPOCHS: "4"}

steps:
  data:   {run: python -m digits.data, inputs: [src/digits/data.py], outputs: [data/]}
  train:
    run: python -m digits.train
    inputs: [src/, data/]                # naming another step's output implies needs
    outputs: [model/]
    metrics: metrics.json
    timeout: 30m
  unit:        {stage: test, run: pytest tests/unit, inputs: [src/, tests/unit/], report: junit.xml}
  integration: {stage: test, needs: package, run: pytest tests, inputs: [tests/integration/], report: junit.xml}
  evaluate:
    stage: test
    needs: package
    run: python -m digits.evaluate
    inputs: [src/, data/]
    evidence: {predictions: predictions.csv, truth: data/test.csv}
  performance: {stage: test, needs: package, run: python -m digits.bench, inputs: [src/, data/], benchmark: bench.json}

package:
  model: model/
  code: [src/, alembic.ini, migrations/, requests.jsonl]
  serve: python -m digits.serve
  health: /health

gates:
  learned:  {metric: train.accuracy, at_least: 0.90}
  accurate: {evidence: evaluate, score: correct, at_least: 0.85}
  better:   {metric: train.accuracy, not_worse_than: champion, margin: 0.03}
  fast:     {metric: performance.p99_ms, at_most: 50}

environments:
  staging: {port: 8801, replicas: 1}
  production:
    needs: staging
    branches: [main]
    port: 8800
    replicas: 2
    variables: {LOG_LEVEL: warning}
"""


# --- what loads


def test_design_example_loads() -> None:
    """The design's example, reduced to the keys that exist, loads as it is meant."""
    pipeline = read(EXAMPLE)
    assert list(pipeline.steps) == ["data", "train", "unit", "integration", "evaluate", "performance"]
    assert pipeline.steps["train"].timeout == 1800
    assert pipeline.steps["unit"].name == "unit"
    assert pipeline.package is not None
    assert pipeline.package.code[1] == "alembic.ini"
    assert pipeline.gates["fast"].rule == "at most 50"
    assert pipeline.environments["production"].needs == ("staging",)
    assert pipeline.environments["production"].branches == ("main",)


@pytest.mark.parametrize(
    "data",
    [
        EXAMPLE.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + EXAMPLE.encode(),
        b"\xef\xbb\xbf%YAML 1.2\r\n---\r\n" + EXAMPLE.replace("\n", "\r\n").encode() + b"...\r\n",
    ],
    ids=["windows", "bom", "all of it"],
)
def test_other_editors(data: bytes) -> None:
    """Windows line endings, a byte order mark and explicit document marks change nothing."""
    assert read(data) == read(EXAMPLE)


def values(text: str) -> dict[str, str]:
    return read(f"name: x\nvariables:\n{text}steps: {{a: {{run: x}}}}\n").variables


def test_variables_stay_as_written() -> None:
    """Numbers and booleans of variables become texts exactly as they are written."""
    text = "  A: 010\n  B: 1.50\n  C: True\n  D: 1e3\n  E: yes\n  F: 0x1F\n  G: ''\n  H: 2024-01-01\n"
    assert list(values(text).items()) == [
        *[("A", "010"), ("B", "1.50"), ("C", "True"), ("D", "1e3")],
        *[("E", "yes"), ("F", "0x1F"), ("G", ""), ("H", "2024-01-01")],
    ]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("0o17", 15), ("0x1f", 31), ("017", 17), ("+12", 12), (".5", 0.5), ("1e2", 100), ("1h30m", 5400), ("90.", 90)],
)
def test_core_schema_numbers(written: str, seconds: float) -> None:
    """Numbers are read by the core schema of YAML 1.2."""
    assert read(f"name: x\nsteps: {{a: {{run: x, timeout: {written}}}}}").steps["a"].timeout == seconds


@pytest.mark.parametrize("written", ["1_000", "yes", "1:30", "0b11", "1e", "12e03x", "9" * 301])
def test_core_schema_texts(written: str) -> None:
    """What only YAML 1.1 took for a number or boolean is a text."""
    found = refused(f"name: x\nsteps: {{a: {{run: x, timeout: {written}}}}}")
    assert "found the text" in found[0][2]


@pytest.mark.parametrize("name", ["yes", "on", "null", "true", "y"])
def test_keys_are_texts(name: str) -> None:
    """A key is the text that it is written as."""
    assert list(read(f"name: x\nsteps: {{{name}: {{run: x}}}}").steps) == [name]


def test_aliases_repeat_values() -> None:
    """An alias repeats the value of its anchor."""
    pipeline = read("name: x\nsteps:\n  a: {run: x, inputs: &i [src/]}\n  b: {run: x, inputs: *i}\n")
    assert pipeline.steps["b"].inputs == ("src/",)


def test_block_text_of_run() -> None:
    """A command of several lines keeps them."""
    assert read("name: x\nsteps:\n  a:\n    run: |\n      one\n      two\n").steps["a"].run == "one\ntwo\n"


def test_schema_is_that_of_the_models() -> None:
    """The schema for editors names the file's keys."""
    assert set(schema()["properties"]) == set(Pipeline.model_fields)


# --- what is refused: text, then (line, column, part of the sentence) of every problem

GATE = "name: x\nsteps:\n  a: {run: x, metrics: m.json, evidence: e.csv}\n  b: {run: x}\ngates:\n  g: "

MALFORMED: dict[str, tuple[str | bytes, list[tuple[int, int, str]]]] = {
    # bytes and YAML
    "empty": ("", [(1, 1, "the file is empty")]),
    "only a comment": ("# nothing\n", [(1, 1, "the file is empty")]),
    "only a mark": ("---\n", [(1, 1, "the file is empty")]),
    "a list": ("- name: x\n", [(1, 1, "expected keys such as name and steps, found a list")]),
    "a text": ("penstock\n", [(1, 1, 'found the text "penstock"')]),
    "not UTF-8": (b"name: x\nsteps: \xe9", [(2, 8, "not UTF-8 (byte 0xe9")]),
    "UTF-16": ("name: x".encode("utf-16"), [(1, 1, "save it as UTF-8")]),
    "NUL": (b"name: x\n  \0", [(2, 3, "U+0000")]),
    "bell": (b"name: \x07", [(1, 7, "U+0007")]),
    "tab": ("name: x\nsteps:\n\ta: {run: x}\n", [(3, 1, "indent with spaces")]),
    "two documents": (ONE + "---\n" + ONE, [(4, 1, "expected one document")]),
    "unclosed list": ("name: [x\n", [(1, 7, "the bracket that opens here is never closed")]),
    "unclosed mapping": ("name: x\nsteps: {a: {run: x}\n", [(2, 8, "the bracket that opens here is never closed")]),
    "unclosed in the middle": ("steps: {a: x\nname: x\n", [(2, 5, 'expected "," or the end of the {…} that opens in')]),
    "unclosed quote": ('name: "x\n', [(1, 7, "the quote that opens here is never closed")]),
    "closed too often": ("name: x]\nsteps: }\n", [(2, 8, "expected a value")]),
    "colon in a text": ("name: x: y\n", [(1, 8, 'quote a text with ": "')]),
    "indentation": ("name: x\n steps: y\n", [(2, 7, "check the indentation")]),
    "key in another column": ("steps:\n  a:\n    run: x\n   b: y\n", [(4, 4, "in the column of the keys above")]),
    "entry in another column": ("a:\n  - x\n - y\n", [(3, 2, "in the column of the keys above")]),
    "at sign": ("name: @x\n", [(1, 7, 'cannot begin with "@"')]),
    "backslash": ('name: "a\\qb"\n', [(1, 9, "in single quotes a backslash is plain")]),
    "no name of an alias": ("name: * x\n", [(1, 8, 'expected a name after "&" or "*"')]),
    "unknown alias": ("name: *x\n", [(1, 7, '"*x" names no anchor')]),
    "alias of itself": ("name: &x [*x]\n", [(1, 11, "stands inside the value that it names")]),
    "python tag": (ONE + "package: !!python/object/apply:os.system [x]\n", [(4, 10, 'tag "!!python/object/apply')]),
    "custom tag": ("name: !mine x\nsteps: {a: {run: x, needs: [!you b]}}\n", [(1, 7, '"!mine"'), (2, 29, '"!you"')]),
    "duplicate key": (ONE + "name: y\n", [(4, 1, 'the key "name" stands here twice (first in line 1)')]),
    "duplicate step": (ONE + "  a: {run: y}\n", [(4, 3, "first in line 3")]),
    "merge key": (ONE + "  b:\n    <<: {run: x}\n    run: y\n", [(5, 5, "write the keys out")]),
    "a list for a key": (ONE + "? [a]\n: b\n", [(4, 3, "expected a name before the colon, found a list")]),
    "version of YAML": ("%YAML 3.0\n---\nname: x\n", [(1, 1, "not YAML")]),
    # keys and types
    "nothing required": ("variables: {A: b}\n", [(1, 1, '"name" is missing'), (1, 1, '"steps" is missing')]),
    "steps without value": ("name: x\nsteps:\n", [(2, 7, '"steps" has no value')]),
    "no steps": ("name: x\nsteps: {}\n", [(2, 1, "expected at least one step")]),
    "steps as list": ("name: x\nsteps:\n- run: x\n", [(3, 1, "expected names, each with a value, found a list")]),
    "step as text": ("name: x\nsteps:\n  a: make\n", [(3, 6, "expected keys such as run and outputs")]),
    "no run": ("name: x\nsteps:\n  a: {outputs: o/}\n", [(3, 3, '"run" is missing: a step needs it')]),
    "empty run": ("name: x\nsteps:\n  a: {run: ' '}\n", [(3, 12, "expected a command")]),
    "run is a number": ("name: x\nsteps:\n  a: {run: 5}\n", [(3, 12, "expected a text, found the number 5")]),
    "wrong key": (STEP + "metric: m.json\n", [(5, 5, 'unknown key "metric" in steps.a: did you mean "metrics"?')]),
    "far from any key": (STEP + "zzz: m\n", [(5, 5, 'unknown key "zzz" in steps.a: expected one of run, stage')]),
    "wrong key at the top": (ONE + "environment: {}\n", [(4, 1, 'did you mean "environments"?')]),
    "wrong key without value": (ONE + "gate:\n", [(4, 1, 'did you mean "gates"?')]),
    "name within a step": (STEP + "name: b\n", [(5, 5, 'unknown key "name" in steps.a')]),
    "later in triggers": (
        ONE + "on: {push: {}, pull_request: true}\n",
        [(4, 16, '"pull_request" is not available yet')],
    ),
    "quarantine without results": (
        STEP + "quarantine: [{test: t, owner: o, reason: r, until: 2026-12-31}]\n",
        [(5, 5, '"quarantine" needs test results: add report: FILE to the step, or have it run pytest')],
    ),
    "quarantine that is no list": (
        STEP + "report: r\n    quarantine: t\n",
        [(6, 17, "expected a list of tests, each with the keys test, owner, reason and until")],
    ),
    "quarantine of a text": (
        STEP + "report: r\n    quarantine: [t]\n",
        [(6, 18, 'expected the keys test, owner, reason and until, found the text "t"')],
    ),
    "quarantine with much that is wrong": (
        STEP
        + "report: r\n    quarantine:\n"
        + "    - {test: t, owner: o, until: 2026-02-30}\n"
        + "    - {test: '', owner: o, reason: r, untill: x, until: 20261231}\n",
        [
            (7, 7, '"reason" is missing: a quarantine needs it'),
            (7, 34, 'expected a day such as 2026-12-31, found the text "2026-02-30"'),
            (8, 14, "expected a line of text"),
            (8, 39, 'unknown key "untill" in steps.a.quarantine.1: did you mean "until"?'),
            (8, 57, "expected a day such as 2026-12-31, found the number 20261231"),
        ],
    ),
    "later in a step": (STEP + "host: a.example\n", [(5, 5, '"host" is not available yet')]),
    "no name of an image": (ONE + "runtime: {image: Python 3}\n", [(4, 18, '"Python 3" has capital letters')]),
    "two sources of a runtime": (
        ONE + "runtime: {image: x, dockerfile: Dockerfile}\n",
        [(4, 21, 'expected one of requirements, lock, pyproject, image and dockerfile, found "image" before')],
    ),
    "no network outside of a container": (
        STEP + "network: false\n",
        [(5, 14, "only a container can be without a network: give the runtime an image or a dockerfile")],
    ),
    "two tellers of outside data in an image": (
        "runtime: {image: x}\n" + STEP + "external: [file:///a]\n    fingerprint: date\n",
        [(7, 5, 'in an image a step has either "external" or "fingerprint"')],
    ),
    "unknown form of a release": (
        PACK + "environments: {s: {port: 80, as: pod}}\n",
        [(5, 34, 'expected process or container, found the text "pod"')],
    ),
    "later in the package": (PACK.replace("serve", "runtime"), [(4, 23, '"runtime" is not available yet')]),
    "later in a gate": (GATE + "{metric: a.x, at_least: 1, power: 1}", [(6, 33, '"power" is not available')]),
    "at_most alone": (STEP + "evidence: {predictions: p.csv, at_most: 5}\n", [(5, 36, '"at_most" needs a batch')]),
    "batches without a truth": (STEP + "evidence: {predictions: p.csv, batch: 5}\n", [(5, 36, "name its file")]),
    "batches of Parquet": (
        STEP + "evidence: {predictions: p.parquet, truth: t.csv, batch: 5}\n",
        [(5, 54, "batches are joined line by line")],
    ),
    "unsure in batches": (
        STEP
        + "evidence: {predictions: p.csv, truth: t.csv, batch: 5}\n"
        + "gates: {g: {evidence: a, at_least: 0.5}, h: {evidence: a, within: [0, 1], confidence: 0.9, slices: b}}\n",
        [
            (6, 13, "so the gate needs a confidence"),
            (6, 59, "write at_least and at_most as two gates"),
            (6, 92, "slices are judged at the end"),
        ],
    ),
    "batches in a whole": (
        STEP
        + "evidence: {predictions: p.csv, truth: t.csv, batch: 5}\n"
        + "gates: {g: {all_of: [{evidence: a, at_least: 0.5, confidence: 0.9}]}}\n",
        [(6, 23, "make it a gate of its own")],
    ),
    "an impossible share": (GATE + "{evidence: a, at_least: 90}", [(6, 20, "expected a share from 0 to 1")]),
    "a margin of all": (
        GATE + "{evidence: a, not_worse_than: champion, margin: 3}",
        [(6, 46, "three points are 0.03")],
    ),
    "the same as itself": (GATE + "{evidence: a, same_as: a}", [(6, 20, "a step always answers as itself")]),
    "a slice twice": (GATE + "{evidence: a, at_least: 0.5, slices: [b, b]}", [(6, 35, "named twice")]),
    "less than a batch": (
        STEP + "evidence: {predictions: p.csv, truth: t.csv, batch: 5, at_most: 2}\n",
        [(5, 60, "expected at least one batch")],
    ),
    "no bet is won": (
        STEP
        + "evidence: {predictions: p.csv, truth: t.csv, batch: 5}\n"
        + "gates: {g: {evidence: a, at_least: 1, confidence: 0.9}}\n",
        [(6, 36, "no bet is won on that")],
    ),
    "later in an environment": (
        PACK + "environments: {s: {port: 80, host: a.example}}\n",
        [(5, 30, '"host" is not available yet')],
    ),
    "stage": (STEP + "stage: tset\n", [(5, 12, 'expected build or test or deploy, found the text "tset": did you')]),
    "shell": (STEP + "shell: 1\n", [(5, 12, "expected sh or bash or python, found the number 1")]),
    "boolean as text": (STEP + "cache: no\n", [(5, 12, 'expected true or false, found the text "no"')]),
    "list with a number": (STEP + "inputs: [src/, 5]\n", [(5, 20, "expected a text, found the number 5")]),
    "list with nothing": (STEP + "inputs:\n    - src/\n    -\n", [(7, 6, "this entry of the list has no value")]),
    "list as mapping": (STEP + "inputs: {a: b}\n", [(5, 13, "expected a text or a list of texts, found a mapping")]),
    "duration": (STEP + "timeout: 3 minutes\n", [(5, 14, "expected a duration such as 90s")]),
    "duration as list": (STEP + "timeout: [1]\n", [(5, 14, "expected a duration such as 90s")]),
    "duration below zero": (STEP + "timeout: -1\n", [(5, 14, "expected more than 0, found the number -1")]),
    "duration without end": (STEP + "timeout: .inf\n", [(5, 14, "expected a finite number")]),
    "evidence": (STEP + "evidence: 5\n", [(5, 15, "expected a file, or the keys predictions and truth")]),
    "evidence without predictions": (STEP + "evidence: {truth: t}\n", [(5, 5, '"predictions" is missing')]),
    "path above": (STEP + "outputs: [../x]\n", [(5, 15, 'leads out of the repository by ".."')]),
    "path absolute": (STEP + "outputs: /x\n", [(5, 14, "is absolute")]),
    "path at home": (STEP + "evidence: ~/x\n", [(5, 15, "begins with ~")]),
    "path with variable": (STEP + "inputs: $HOME/x\n", [(5, 13, "holds a $")]),
    "path of Windows": (STEP + "inputs: a\\b\n", [(5, 13, "separate folders by /")]),
    "path with stars": (STEP + "inputs: src/**.py\n", [(5, 13, "src/**/*.py")]),
    "many files for one": (STEP + "report: out/*.xml\n", [(5, 13, "must name one file")]),
    "name of a step": ("name: x\nsteps:\n  a b: {run: x}\n", [(3, 3, '"a b" cannot be a name')]),
    "name of a step with more wrong": (
        "name: x\nsteps:\n  a b: {runs: x, inputs: {a: b}, evidence: {truth: 5}}\n",
        [
            *[(3, 3, '"a b" cannot be a name'), (3, 3, '"run" is missing'), (3, 9, 'did you mean "run"?')],
            *[(3, 26, "a list of texts"), (3, 34, '"predictions" is missing'), (3, 52, "expected a text")],
        ],
    ),
    "reserved step": ("name: x\nsteps:\n  check: {run: x}\n", [(3, 3, "a step of Penstock's own")]),
    "name of the project": ("name: a/b\nsteps: {a: {run: x}}\n", [(1, 7, '"a/b" cannot be a name')]),
    "name of a variable": (ONE + "variables: {A-B: x}\n", [(4, 13, '"A-B" cannot be a variable')]),
    "variable of Penstock": (ONE + "variables: {PENSTOCK_RUN: x}\n", [(4, 13, "is set by Penstock")]),
    "variable without value": (ONE + "variables: {A: }\n", [(4, 16, '"A" has no value')]),
    "variable as list": (ONE + "variables: {A: [b]}\n", [(4, 16, "expected a text, found a list")]),
    "passed on": (STEP + "env: [HOME]\n", [(5, 11, '"HOME" is set by Penstock')]),
    "python 3.10 unquoted": (ONE + "runtime: {python: 3.10}\n", [(4, 19, 'if Python 3.10 is meant, write "3.10"')]),
    "python as number": (ONE + "runtime: {python: 3}\n", [(4, 19, "expected a Python version in quotes")]),
    "python as word": (ONE + "runtime: {python: three}\n", [(4, 19, 'expected a Python version such as "3.11"')]),
    "two locks": (ONE + "runtime: {requirements: a, lock: b}\n", [(4, 28, 'found "requirements" before')]),
    "empty package": (ONE + "package: {serve: x}\n", [(4, 1, "expected model, code or both")]),
    "health": (ONE + "package: {code: x, health: health}\n", [(4, 28, 'begins with one "/"')]),
    "check": (ONE + "check: x\n", [(4, 8, "expected the key exclude")]),
    # the whole
    "unknown need": (STEP + "needs: [aa, trian]\n  train: {run: x}\n", [(5, 13, '"aa"'), (5, 17, 'mean "train"?')]),
    "needs a package": (STEP + "needs: package\n", [(5, 12, "the file has no package")]),
    "needs itself": (STEP + "needs: a\n", [(5, 12, 'step "a" needs itself')]),
    "needs a cell": (
        STEP + "needs: 'b[seed=0]'\n  b: {run: x}\n",
        [(5, 12, 'names a cell, but step "b" has no matrix')],
    ),
    "loop": (
        "name: x\nsteps:\n  a: {run: x, needs: b}\n  b: {run: x, needs: c}\n  c: {run: x, needs: a}\n",
        [(3, 22, "in a loop: a needs b needs c needs a")],
    ),
    "loop by inputs": (
        "name: x\nsteps:\n  a: {run: x, inputs: [q, o/x], outputs: p/}\n  b: {run: x, inputs: p/x, outputs: o/}\n",
        [(3, 27, "in a loop: a needs b needs a")],
    ),
    "loop by truth": (
        "name: x\nsteps:\n  a: {run: x, evidence: {predictions: p, truth: o/t}}\n  b: {run: x, needs: a, outputs: o}\n",
        [(3, 49, "in a loop: a needs b needs a")],
    ),
    "loop by the package": (
        STEP + "needs: package\n    outputs: o/\npackage: {model: o/}\n",
        [(5, 12, "in a loop: a needs package needs a")],
    ),
    "same output": (
        "name: x\nsteps:\n  a: {run: x, outputs: [o/]}\n  b: {run: x, outputs: [p, o/x]}\n",
        [(4, 28, 'the output "o/x" collides with an output of step "a"')],
    ),
    "truth out of reach": (
        STEP + "inputs: src/\n    evidence: {predictions: p.csv, truth: data/t.csv}\n",
        [(6, 43, 'the truth "data/t.csv" is not among the inputs')],
    ),
    "nothing to judge": (GATE + "{at_least: 1}", [(6, 3, "expected something to judge: metric, evidence")]),
    "two things to judge": (
        GATE + "{metric: a.x, evidence: a, at_least: 1}",
        [(6, 20, 'found "metric" and "evidence"')],
    ),
    "no rule": (GATE + "{metric: a.x}", [(6, 3, "expected a rule")]),
    "two rules": (GATE + "{metric: a.x, at_least: 1, at_most: 2}", [(6, 33, 'found "at_least" and "at_most"')]),
    "rule as text": (
        GATE + "{metric: a.x, at_least: '1'}",
        [(6, 30, "expected a number, or one with a unit")],
    ),
    "margin alone": (GATE + "{metric: a.x, at_least: 1, margin: 2}", [(6, 33, "belongs to not_worse_than")]),
    "no margin": (GATE + "{metric: a.x, not_worse_than: champion}", [(6, 20, "needs a margin")]),
    "margin below zero": (
        GATE + "{metric: a.x, not_worse_than: champion, margin: -1}",
        [(6, 54, "expected a number of 0 or more")],
    ),
    "not worse than whom": (
        GATE + "{metric: a.x, not_worse_than: chmpion, margin: 1}",
        [(6, 36, "expected champion, champion:ENVIRONMENT, previous")],
    ),
    "better than whom": (
        GATE + "{metric: a.x, better_than: main}",
        [(6, 33, "expected champion, champion:ENVIRONMENT, previous")],
    ),
    "worse and better": (
        GATE + "{evidence: a, not_worse_than: champion, better_than: champion, margin: 0}",
        [(6, 46, 'expected one rule, found "not_worse_than" and "better_than"')],
    ),
    "required alone": (
        GATE + "{metric: a.x, at_least: 1, required: true}",
        [(6, 33, '"required" belongs to not_worse_than and better_than')],
    ),
    "range of one": (GATE + "{metric: a.x, within: [1]}", [(6, 28, "expected two numbers, such as")]),
    "range of words": (GATE + "{metric: a.x, within: [a, 1]}", [(6, 28, "expected two numbers, such as")]),
    "range the wrong way": (GATE + "{metric: a.x, within: [2, 1]}", [(6, 28, "expected the smaller number first")]),
    "confidence of a metric": (
        GATE + "{metric: a.x, at_least: 1, confidence: 0.9}",
        [(6, 33, '"confidence" belongs to evidence')],
    ),
    "confidence of an exact value": (
        GATE + "{evidence: a, equals: 1, confidence: 0.9}",
        [(6, 31, "write within: [LEAST, MOST]")],
    ),
    "confidence in percent": (
        GATE + "{evidence: a, at_least: 1, confidence: 95}",
        [(6, 45, "expected less than 1")],
    ),
    "confidence of a coin": (
        GATE + "{evidence: a, at_least: 1, confidence: 0.5}",
        [(6, 45, "expected more than 0.5")],
    ),
    "indifference of a plain bound": (
        GATE + "{evidence: a, at_least: 1, indifference: 0.1}",
        [(6, 33, '"indifference" belongs to a bound on evidence with confidence')],
    ),
    "indifference beyond the margin": (
        GATE + "{evidence: a, not_worse_than: champion, margin: 0.1, indifference: 0.06}",
        [(6, 59, "expected at most half the margin, 0.05")],
    ),
    "reuse without a risk": (GATE + "{evidence: a, at_least: 1, reuse: enforce}", [(6, 33, '"reuse" needs a risk to')]),
    "inconclusive is what": (
        GATE + "{metric: a.x, at_least: 1, inconclusive: pass}",
        [(6, 47, "expected fail or hold or warn, found the text")],
    ),
    "score of a metric": (GATE + "{metric: a.x, score: correct, at_least: 1}", [(6, 20, "belongs to evidence")]),
    "format of no model": (
        ONE + "package: {model: m/}\ngates: {g: {model: format, one_of: [onnx, safetensor]}}\n",
        [(5, 43, 'no model file has the format "safetensor": did you mean "safetensors"?')],
    ),
    "metric of no step": (GATE + "{metric: aa.x, at_least: 1}", [(6, 15, 'no step is named "aa"')]),
    "metric without a name": (GATE + "{metric: accuracy, at_least: 1}", [(6, 15, "such as train.accuracy")]),
    "step without metrics": (GATE + "{metric: b.x, at_least: 1}", [(6, 15, "add metrics: FILE to it")]),
    "step without evidence": (GATE + "{evidence: b, at_least: 1}", [(6, 17, "add evidence: FILE to it")]),
    "environment without package": (
        ONE + "environments: {s: {port: 80}}\n",
        [(4, 1, "add package with model, code and serve")],
    ),
    "environment without serve": (
        ONE + "package: {code: x}\nenvironments: {s: {port: 80}}\n",
        [(5, 1, "add serve: COMMAND")],
    ),
    "environment without port": (PACK + "environments:\n  s: {replicas: 2}\n", [(6, 3, '"port" is missing')]),
    "port": (PACK + "environments: {s: {port: 70000}}\n", [(5, 26, "expected at most 65535, found the number 70000")]),
    "port as fraction": (PACK + "environments: {s: {port: 80.5}}\n", [(5, 26, "expected a whole number")]),
    "replicas": (PACK + "environments: {s: {port: 80, replicas: 0}}\n", [(5, 40, "expected at least 1")]),
    "equal ports": (
        PACK + "environments:\n  s: {port: 80}\n  p: {port: 80, needs: s}\n",
        [(7, 13, 'is that of environment "s" too')],
    ),
    "unknown environment": (
        PACK + "environments:\n  staging: {port: 80}\n  p: {port: 81, needs: stagin}\nchampion: p\n",
        [(7, 24, 'no environment is named "stagin": did you mean "staging"?')],
    ),
    "probe of the wrong kind": (
        PACK + "environments: {s: {port: 80, probe: 3}}\n",
        [(5, 37, "expected a file of recorded requests, or keys such as requests and agreement, found the number 3")],
    ),
    "probe of nothing": (
        PACK + "environments: {s: {port: 80, probe: {agreement: 99%}}}\n",
        [(5, 30, '"requests" is missing')],
    ),
    "probe with another key": (
        PACK + "environments: {s: {port: 80, probe: {requests: src/a, agrement: 99%}}}\n",
        [(5, 55, 'unknown key "agrement" in environments.s.probe: did you mean "agreement"?')],
    ),
    "probe with impossible demands": (
        PACK + "environments: {s: {port: 80, probe: {requests: src/a, errors: 120%, latency_p99_ratio: 0.5}}}\n",
        [(5, 63, "expected at most 1"), (5, 88, "expected at least 1")],
    ),
    "approval by nobody who could": (
        PACK + "environments: {s: {port: 80, approval: {roles: [deplyer], by: 3}}}\n",
        [
            (5, 49, 'expected developer or deployer or admin, found the text "deplyer": did you mean "deployer"?'),
            (5, 59, 'unknown key "by" in environments.s.approval: expected one of roles, expires, by_another'),
        ],
    ),
    "approval that is a text": (
        PACK + "environments: {s: {port: 80, approval: deployer}}\n",
        [(5, 40, 'expected true, or keys such as roles and expires, found the text "deployer"')],
    ),
    "doors that are no mappings": (
        PACK + "environments: {s: {port: 80, tls: x, sticky: 3}}\n",
        [
            (5, 35, 'expected the keys certificate and key, found the text "x"'),
            (5, 46, "expected the key header or cookie, found the number 3"),
        ],
    ),
    "watch with another key": (
        PACK + "environments: {s: {port: 80, watch: {during: 1h}}}\n",
        [(5, 38, 'unknown key "during" in environments.s.watch')],
    ),
    "watch that nothing could break": (
        PACK + "environments: {s: {port: 80, watch: {error_rate_at_most: 100%, on_breach: mail}}}\n",
        [(5, 38, "expected a share above 0 % and below 100 %"), (5, 75, "expected rollback or notify")],
    ),
    "watch for what is no duration": (
        PACK + "environments: {s: {port: 80, watch: always}}\n",
        [(5, 37, "expected a duration such as 90s")],
    ),
    "watch whose command has places": (
        PACK + "environments: {s: {port: 80, watch: {notify: 'echo ${{ version }}'}}}\n",
        [(5, 46, '"${{" is not replaced here: write the command out')],
    ),
    "probe that the package does not hold": (
        PACK + "environments: {s: {port: 80, probe: asked.jsonl}}\n",
        [(5, 37, 'the recorded requests "asked.jsonl" are no file of the package: add them to its code')],
    ),
    "calls without requests": (
        PACK + "environments: {s: {port: 80, rollout: {canary: 5%, traffic: probe}}}\n",
        [(5, 30, "add probe: FILE to the environment")],
    ),
    "deploy of the wrong kind": (
        PACK + "environments: {s: {deploy: x}}\n",
        [(5, 28, "expected the keys run, rollback, health and timeout")],
    ),
    "deploy without a health URL": (
        PACK + "environments: {s: {deploy: {run: x}}}\n",
        [(5, 20, '"health" is missing: deploy needs it')],
    ),
    "deploy with something else as an address": (
        PACK + "environments: {s: {deploy: {run: x, health: there}}}\n",
        [(5, 45, 'expected an address such as https://example.org/health, found "there"')],
    ),
    "deploy with a port": (
        PACK + "environments: {s: {deploy: {run: x, health: 'http://a'}, port: 80}}\n",
        [(5, 58, '"port" is for what Penstock serves itself')],
    ),
    "deploy with a rollout": (
        PACK + "environments: {s: {deploy: {run: x, health: 'http://a'}, rollout: {canary: 5%}}}\n",
        [(5, 58, '"rollout" is for what Penstock serves itself')],
    ),
    "deploy of an image": (
        PACK + "environments: {s: {deploy: {run: x, health: 'http://a'}, as: container}}\n",
        [(5, 58, '"as" is for what Penstock serves itself')],
    ),
    "deploy names nothing": (
        PACK + "environments: {s: {deploy: {run: x, health: 'http://a/${{ versoin }}'}}}\n",
        [(5, 45, 'did you mean "version"')],
    ),
    "config of the wrong kind": (PACK + "environments: {s: {port: 80, config: 3}}\n", [(5, 38, "the number 3")]),
    "unknown key of config": (
        PACK + "environments: {s: {port: 80, config: {template: src/a, too: b}}}\n",
        [(5, 56, 'did you mean "to"')],
    ),
    "unknown key in a list of config": (
        PACK + "environments: {s: {port: 80, config: [src/a, {template: src/b, too: b}]}}\n",
        [(5, 64, 'did you mean "to"')],
    ),
    "config without a template": (
        PACK + "environments: {s: {port: 80, config: {to: a}}}\n",
        [(5, 30, '"template" is missing: config needs it')],
    ),
    "a template outside of the package": (
        PACK + "environments: {s: {port: 80, config: {template: a}}}\n",
        [(5, 49, 'the template "a" is no file of the package')],
    ),
    "two files of config of one name": (
        PACK + "environments: {s: {port: 80, config: [src/a, {template: src/b, to: src/a}]}}\n",
        [(5, 30, 'two files of config would be "src/a"')],
    ),
    "a file of config below another": (
        PACK + "environments: {s: {port: 80, config: [src/a, {template: src/b, to: src/a/b}]}}\n",
        [(5, 30, '"src/a/b" lies below another file of config')],
    ),
    "config for an image": (
        PACK + "environments: {s: {port: 80, as: container, config: src/a}}\n",
        [(5, 45, "cannot be given files")],
    ),
    "config told as a variable of the environment": (
        PACK + "environments: {s: {port: 80, variables: {A: 1}, config: {template: src/a, as: A}}}\n",
        [(5, 49, '"A" names more than one thing here')],
    ),
    "config told as a variable of the pipeline": (
        PACK + "variables: {A: 1}\nenvironments: {s: {port: 80, config: [{template: src/a, as: A}]}}\n",
        [(6, 61, '"A" is a variable of the pipeline already')],
    ),
    "migrate of the wrong kind": (PACK + "environments: {s: {port: 80, migrate: 3}}\n", [(5, 39, "the number 3")]),
    "migrate without a command": (
        PACK + "environments: {s: {port: 80, migrate: {timeout: 1m}}}\n",
        [(5, 30, '"run" is missing: migrate needs it')],
    ),
    "unknown key of migrate": (
        PACK + "environments: {s: {port: 80, migrate: {run: x, contracts: true}}}\n",
        [(5, 48, 'did you mean "contract"?')],
    ),
    "migrate names nothing": (
        PACK + "environments: {s: {port: 80, migrate: 'x ${{ versoin }}'}}\n",
        [(5, 39, 'did you mean "version"?')],
    ),
    "a way down without a way up": (
        PACK + "environments: {s: {port: 80, migrate_down: x}}\n",
        [(5, 30, "add migrate: COMMAND")],
    ),
    "environment needs itself": (PACK + "environments: {s: {port: 80, needs: s}}\n", [(5, 37, "needs itself")]),
    "environments in a loop": (
        PACK + "environments:\n  s: {port: 80, needs: p}\n  p: {port: 81, needs: [s]}\n",
        [(6, 24, "in a loop: s needs p needs s")],
    ),
    "branch": (PACK + "environments: {s: {port: 80, branches: [a b]}}\n", [(5, 41, "such as main or release/*")]),
    "branch with stars": (PACK + "environments: {s: {port: 80, branches: a**}}\n", [(5, 40, "a part of its own")]),
    "champion": (PACK + "environments: {s: {port: 80}}\nchampion: ss\n", [(6, 11, 'no environment is named "ss"')]),
    "two champions": (PACK + "environments: {s: {port: 80}, p: {port: 81}}\n", [(5, 1, "as champion: NAME")]),
    "unknown variable": (
        ONE + "  b: {run: 'x ${{ variables.EPOCH }}'}\nvariables: {EPOCHS: 3}\n",
        [(4, 12, 'did you mean "variables.EPOCHS"?')],
    ),
    "matrix": (ONE + "  b: {run: 'x ${{ matrix.seed }}'}\n", [(4, 12, 'names nothing: step "b" has no matrix')]),
    "outside": (STEP + "external: s3://a/b\n", [(5, 15, "Penstock cannot look at s3:// itself: add fingerprint")]),
    "unclosed interpolation": (ONE + "  b: {run: 'x ${{ version'}\n", [(4, 12, "is not closed")]),
    "variable of a variable": (
        ONE + "variables: {A: '${{ variables.B }}', B: '${{ version }}'}\n",
        [(4, 16, "can refer to a plain one only")],
    ),
    "variable of an environment": (
        PACK + "environments: {s: {port: 80, variables: {A: '${{ commi }}'}}}\n",
        [(5, 45, 'did you mean "commit"?')],
    ),
    "command that serves": (PACK.replace("serve: x", "serve: '${{ x }}'"), [(4, 30, '"${{ x }}" names nothing')]),
    "requests of what is not served": (
        ONE + "package: {code: x, requests: r.jsonl}\n",
        [(4, 20, "recorded requests are asked of what is served: add serve: COMMAND to the package")],
    ),
    "requests as a list": (
        ONE + "package: {code: x, serve: x, requests: [r]}\n",
        [(4, 40, "expected a file, or the keys file, tolerance and repeat, found a list")],
    ),
    "requests without a file": (
        ONE + "package: {code: x, serve: x, requests: {repeat: 2}}\n",
        [(4, 30, '"file" is missing: requests needs it')],
    ),
    "requests of less than no tolerance": (
        ONE + "package: {code: x, serve: x, requests: {file: r, tolerance: -1, repeat: 0}}\n",
        [(4, 61, "expected at least 0"), (4, 73, "expected at least 1")],
    ),
    "requests of which cell": (
        ONE + "  b: {run: x, outputs: o/, matrix: {n: [1, 2]}}\npackage: {code: x, serve: x, requests: o/r}\n",
        [(5, 40, '"o/r" is an output of step "b", which has cells: name one as needs of the package')],
    ),
    "step named replay": (ONE + "  replay: {run: x}\n", [(4, 3, "is the name of a step of Penstock's own")]),
    "metric of no requests": (
        GATE + "{metric: replay.errors, at_most: 0}",
        [(6, 15, '"replay.errors" is measured with recorded requests: add requests: FILE to the package')],
    ),
    "metric of no replay": (
        GATE + "{metric: replay.eror, at_most: 0}\npackage: {code: x, serve: x, requests: r}\n",
        [(6, 15, 'a replay does not measure "replay.eror"')],
    ),
    "aggregate of a replay": (
        GATE + "{metric: replay.errors, at_most: 0, aggregate: max}\npackage: {code: x, serve: x, requests: r}\n",
        [(6, 53, 'step "replay" has no matrix: leave it out')],
    ),
    "evidence of a replay": (
        GATE + "{evidence: replay, at_least: 0}\npackage: {code: x, serve: x, requests: r}\n",
        [(6, 17, 'no step is named "replay"')],
    ),
    "NUL in quotes": (ONE + 'variables: {A: "a\\0b"}\n', [(4, 16, "cannot hold a NUL")]),
}


def test_a_probe_is_read() -> None:
    """A file alone is short for its mapping, shares may be percentages, and the stored form is read again as it was."""
    short = read(PACK + "environments: {s: {port: 80, probe: src/a}}\n")
    long = read(
        PACK
        + "environments: {s: {port: 80, probe: {requests: src/a, agreement: 99.5%, errors: 0.01, repeat: 3, "
        + "latency_p99_ratio: 2, timeout: 1m}}}\n"
    )
    assert short.environments["s"].probe == ProbeRules(requests="src/a")
    probe = long.environments["s"].probe
    assert probe is not None
    assert (probe.agreement, probe.errors, probe.repeat) == (0.995, 0.01, 3)
    assert (probe.latency_p50_ratio, probe.latency_p99_ratio, probe.timeout) == (None, 2, 60)
    for pipeline in (short, long):
        assert Pipeline.model_validate(pipeline.model_dump(mode="json")) == pipeline
    assert asdict(Rules.of(probe.model_dump())) == probe.model_dump()


def test_a_watch_is_read() -> None:
    """A duration alone is short for its mapping, and the stored form is read again as it was."""
    short = read(PACK + "environments: {s: {port: 80, watch: 90m}}\n")
    long = read(
        PACK
        + "environments: {s: {port: 80, watch: {for: 2h, error_rate_at_most: 0.5%, latency_p99_ratio: 1.5, "
        + "on_breach: notify, notify: sh tell.sh}}}\n"
    )
    assert short.environments["s"].watch == WatchRules.model_validate({"for": 5400.0})
    watch = long.environments["s"].watch
    assert watch is not None
    assert (watch.lasts, watch.error_rate_at_most, watch.latency_p99_ratio) == (7200, 0.005, 1.5)
    assert (watch.latency_p50_ratio, watch.on_breach, watch.notify) == (None, "notify", "sh tell.sh")
    for pipeline in (short, long):
        assert Pipeline.model_validate(pipeline.model_dump(mode="json")) == pipeline


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str) -> None:
    """Each problem is told at its line and column, with what to do, and no other problem is invented."""
    text, expected = MALFORMED[case]
    found = refused(text)
    assert [row[:2] for row in found] == [row[:2] for row in expected], found
    assert all(part in sentence for (_, _, sentence), (_, _, part) in zip(found, expected, strict=True)), found


def test_all_problems_at_once() -> None:
    """Problems of every kind are told together, in order, and none that only follows from another."""
    text = """\
name: x
steps:
  a: {run: x, metric: m.json, outputs: [out/, 5], needs: nosuch}
  b: {run: 5, inputs: out/}
  c: {run: x, evidence: ../x}
package: {code: 5}
gates:
  g: {metric: a.x, at_least: "0.9"}
  h: {metric: a.x, at_least: 0.9}
  i: {evidence: c, at_least: 0.9}
environments:
  s: {port: 80, needs: t}
  t: {port: eighty}
"""
    assert [row[:2] for row in refused(text)] == [
        *[(3, 15), (3, 47), (3, 58), (4, 12), (5, 25), (6, 17), (8, 30), (13, 13)]
    ]


def test_many_problems_are_counted() -> None:
    """Beyond a hundred problems only their number is told."""
    found = refused(ONE + "".join(f"key{n}: x\n" for n in range(1000)))
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1][2] == "and 900 more problems: mend these first"


# --- whatever comes


def loads_or_refuses(data: bytes) -> None:
    try:
        pipeline = load(data, "f")
    except PipelineError as error:
        problems = error.problems
    else:
        assert Pipeline.model_validate(pipeline.model_dump()) == pipeline
        return
    assert problems
    assert all(p.line >= 1 and p.column >= 1 and p.sentence and "\n" not in p.sentence for p in problems)
    assert not [p for p in problems if "another value" in p.sentence]


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Arbitrary bytes load or are refused; nothing else is raised."""
    loads_or_refuses(data)


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab: -[]{},&*!|>%@`\"'#?\n\t\\<$~.0x\u2028\x85é🎈")), max_size=60))
def test_any_signs(text: str) -> None:
    """Arbitrary arrangements of YAML's own signs load or are refused."""
    loads_or_refuses(text.encode())


_KEY_WORDS = (
    "name steps runtime variables package gates environments check champion a b run needs inputs outputs metrics "
    "evidence predictions truth timeout shell stage model code serve health metric at_least not_worse_than margin "
    "score port replicas branches python path requirements exclude env cache on retry zzz A B << "
    "matrix include when resources gpu memory max push schedule concurrency group aggregate secrets fresh "
    "within better_than indifference confidence inconclusive required reuse requests file tolerance repeat"
)
_KEYS = st.sampled_from(_KEY_WORDS.split())
_LEAF_WORDS = (
    "a b package champion a.x o/ o/x ../x 5 0.5 true null '' 30m 3.10 '3.11' src/ **/*.py main 80 '${{ version }}' "
    "'${{ variables.A }}' '${{ x }}' .inf -1 build python /health {} [] !x correct $X "
    "replay.errors 'a[b=5]' '${{ matrix.b }}' always '0_3_*_*_1' 2GiB oom push"
)
_LEAVES = st.sampled_from(_LEAF_WORDS.replace("'${{ ", "'${{_").replace(" }}'", "_}}'").split()).map(
    lambda word: word.replace("_", " ") if "${{" in word else word
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(_KEYS, inner), max_size=4).map(
            lambda rows: "{" + ", ".join(f"{k}: {v}" for k, v in rows) + "}"
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(_KEYS, _VALUES), max_size=6))
def test_any_shapes(rows: list[tuple[str, str]]) -> None:
    """Known keys and values in any arrangement load or are refused."""
    loads_or_refuses("".join(f"{key}: {value}\n" for key, value in rows).encode())


@settings(deadline=None)
@given(st.data())
def test_damaged_example(data: st.DataObject) -> None:
    """The example with a piece replaced by a piece of itself loads or is refused."""
    start, end = sorted((data.draw(st.integers(0, len(EXAMPLE))), data.draw(st.integers(0, len(EXAMPLE)))))
    end = min(end, start + 30)
    other = data.draw(st.integers(0, len(EXAMPLE)))
    loads_or_refuses((EXAMPLE[:start] + EXAMPLE[other : other + 20] + EXAMPLE[end:]).encode())


def test_config_and_deploy_are_read() -> None:
    """A template alone, one mapping and a list are read alike, and the stored form is read again as it was."""
    found = [
        read(PACK + f"environments: {{s: {{port: 80, config: {config}}}}}\n").environments["s"].config
        for config in ("src/a", "{template: src/a}", "[src/a]", "[{template: src/a}]")
    ]
    assert found == [(ConfigFile(template="src/a"),)] * 4
    assert [file.target for file in found[0]] == ["src/a"]
    deploy = "{run: a, rollback: b, health: 'https://x/${{ version }}', timeout: 5m}"
    pipeline = read(
        ONE
        + "package: {code: src/}\n"
        + f"environments: {{s: {{deploy: {deploy}, config: [src/b, {{template: src/a, to: c, as: D}}]}}}}\n"
    )
    environment = pipeline.environments["s"]
    assert environment.deploy == Deploy(run="a", rollback="b", health="https://x/${{ version }}", timeout=300.0)
    assert [(file.target, file.told_as) for file in environment.config] == [("src/b", None), ("c", "D")]
    assert environment.port is None
    assert Pipeline.model_validate(pipeline.model_dump(mode="json")) == pipeline
