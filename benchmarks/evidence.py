"""How long a gate on a million examples takes, from the bytes of the files to the verdict, and how much memory.

    python benchmarks/evidence.py [--examples 1000000] [--cases 100000] [--rounds 3] [--slices 1000]

Each figure is of fresh processes that do nothing else, imports of numpy and scipy included: a new model and a champion
with predictions of their own, in an order of their own, on one file of truths. Parquet is measured where pyarrow is
installed; CSV besides with so many slices, each judged. Seconds on the wall and of the processor are the least of the
rounds; all ends with 0 whatever was found.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from penstock.comparisons import Champion, judge_examples
from penstock.evidence import read_evidence, read_truth
from penstock.gates import Verdict
from penstock.pipelines import Gate
from penstock.reports import parse_junit

Column = Sequence[object]


# --- files ---------------------------------------------------------------------------------------------------------


def as_csv(names: Sequence[str], columns: Sequence[Column]) -> bytes:
    return "\n".join([",".join(names), *(",".join(map(str, row)) for row in zip(*columns, strict=True))]).encode()


def as_quoted_csv(names: Sequence[str], columns: Sequence[Column]) -> bytes:
    rows = ('"' + '","'.join(map(str, row)) + '"' for row in zip(*columns, strict=True))
    return "\r\n".join([",".join(names), *rows]).encode()


def as_json(names: Sequence[str], columns: Sequence[Column]) -> bytes:
    form = "{{" + ", ".join(f'"{name}": {{}}' for name in names) + "}}"
    quoted = [[f'"{value}"' for value in column] if i == 0 else column for i, column in enumerate(columns)]
    return "\n".join(form.format(*row) for row in zip(*quoted, strict=True)).encode()


def as_parquet(names: Sequence[str], columns: Sequence[Column]) -> bytes:
    import io  # noqa: PLC0415 (with what follows)

    import pyarrow as pa  # noqa: PLC0415 (is not always there)
    from pyarrow import parquet  # noqa: PLC0415 (as above)

    out = io.BytesIO()
    parquet.write_table(pa.table(dict(zip(names, columns, strict=True))), out)
    return out.getvalue()


FORMATS: dict[str, tuple[str, Callable[[Sequence[str], Sequence[Column]], bytes]]] = {
    "CSV": ("csv", as_csv),
    "CSV, all quoted": ("csv", as_quoted_csv),
    "JSON Lines": ("jsonl", as_json),
    "Parquet": ("parquet", as_parquet),
}


def write_models(folder: Path, form: str, count: int, *, numeric: bool, groups: int = 0) -> None:
    """A file of truths, with a column of so many groups, and predictions of two models, each in an order of its own."""
    suffix, write = FORMATS[form]
    draw = np.random.default_rng(1)
    ids = [f"example-{number}" for number in draw.permutation(count).tolist()]
    truth = draw.normal(size=count) if numeric else draw.integers(0, 10, count)
    grouped = [draw.integers(0, groups, count).tolist()] if groups else []
    names = ("id", "truth", *(["group"] if groups else []))
    (folder / f"truth.{suffix}").write_bytes(write(names, (ids, truth.tolist(), *grouped)))
    for model, off in (("old", 0.2), ("new", 0.19)):
        noise = draw.normal(size=count) * off if numeric else (draw.random(count) < off) * draw.integers(1, 10, count)
        order = draw.permutation(count)
        answers = (truth + noise)[order]
        columns = [ids[place] for place in order.tolist()], answers.tolist()
        (folder / f"{model}.{suffix}").write_bytes(write(("id", "prediction"), columns))


def write_junit(folder: Path, count: int) -> None:
    """As pytest writes it: each fiftieth test fails, each fiftieth is skipped, each fiftieth prints."""
    inside = {
        0: '<failure message="assert 1 == 2">def test():\nE   AssertionError</failure>',
        1: '<skipped message="later"/>',
        2: "<system-out><![CDATA[loaded]]></system-out>",
    }
    rows = (
        f'<testcase classname="tests.module_{i // 100}.TestThing" name="test_case[{i}]" time="0.012">'
        f"{inside.get(i % 50, '')}</testcase>"
        for i in range(count)
    )
    text = f'<testsuites><testsuite name="pytest" tests="{count}">{"".join(rows)}</testsuite></testsuites>'
    (folder / "junit.xml").write_text(text)


# --- what is measured ----------------------------------------------------------------------------------------------


def verdict(folder: Path, suffix: str, score: str, slices: tuple[str, ...]) -> Verdict:
    """From the bytes of three files to a verdict."""
    truth = read_truth((folder / f"truth.{suffix}").read_bytes(), f"truth.{suffix}", slices)
    rule = {"not_worse_than": "champion", "margin": 0.05 if slices else 0.01, "slices": slices or None}
    gate = Gate.model_validate({"name": "g", "evidence": "e", "score": score, **rule})
    new, old = (
        read_evidence((folder / name).read_bytes(), truth, name, None, (score,), columns)
        for name, columns in ((f"new.{suffix}", slices), (f"old.{suffix}", ()))
    )
    return judge_examples(gate, new, Champion("old", "theirs", old), "mine")


def measured(folder: Path, asked: str) -> None:
    """Do one thing, and print seconds on the wall and of the processor, peak MB, and what was found."""
    begin, used = time.perf_counter(), time.process_time()
    if asked == "junit":
        report = parse_junit((folder / "junit.xml").read_bytes(), "junit.xml")
        said = f"{report.passed:,} passed, {report.failed:,} failed"
    else:
        suffix, score, *slices = asked.split(":")
        said = verdict(folder, suffix, score, tuple(slices)).reasons[0]
    seconds, processor = time.perf_counter() - begin, time.process_time() - used
    status = Path("/proc/self/status").read_text()
    peak = (
        int(status.partition("VmHWM:")[2].split()[0]) / 1024
    )  # what getrusage tells is the parent's, if that had more
    print(f"{seconds:.3f}\t{processor:.3f}\t{peak:.0f}\t{said}")


def line(what: str, folder: Path, asked: str, rounds: int) -> None:
    argv = [sys.executable, __file__, "--folder", str(folder), "--measure", asked]
    found = [subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split("\t") for _ in range(rounds)]
    wall, processor, peak = (min(float(row[i]) for row in found) for i in range(3))
    print(f"{what:<36}{wall:>10.2f}{processor:>12.2f}{peak:>10.0f}   {found[0][3].strip()}")


def main() -> int:
    """Write the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        measured(asked.folder, asked.measure)
        return 0
    print(f"{'new against champion, joined by id':<36}{'wall, s':>10}{'processor':>12}{'peak, MB':>10}")
    for form, (suffix, _) in FORMATS.items():
        for score in ("correct", "squared_error"):
            if suffix == "parquet" and find_spec("pyarrow") is None:
                print(f"{form}, {score}: pyarrow is not installed")
                continue
            with tempfile.TemporaryDirectory() as folder:
                write_models(Path(folder), form, asked.examples, numeric=score != "correct")
                line(f"{form}, {score}", Path(folder), f"{suffix}:{score}", asked.rounds)
    for score in ("correct", "squared_error"):
        with tempfile.TemporaryDirectory() as folder:
            write_models(Path(folder), "CSV", asked.examples, numeric=score != "correct", groups=asked.slices)
            line(f"CSV, {score}, {asked.slices:,} slices", Path(folder), f"csv:{score}:group", asked.rounds)
    with tempfile.TemporaryDirectory() as folder:
        write_junit(Path(folder), asked.cases)
        line(f"JUnit, {asked.cases:,} cases", Path(folder), "junit", asked.rounds)
    print("promised: 2 s and 500 MB for CSV and Parquet, 3 s for JUnit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
