"""Retries, checkpoints, resources, secrets, reruns: what the file asks of a run, by the real command."""

import json
import subprocess
from typing import Any

import pytest

from acceptance.tiny import Tiny

CONTROL = """\
name: control
steps:
  train:
    run: |
      n=$(cat checkpoints/epoch 2>/dev/null || echo 0)
      echo "starts at $n"
      n=$((n+1)); echo $n > "$PENSTOCK_CHECKPOINT/epoch"
      test $n -ge 3
    retry: {max: 3, on: [exit], backoff: 50ms}
    checkpoint: checkpoints/
  gpu: {run: 'echo "gpus=$CUDA_VISIBLE_DEVICES"', resources: {gpu: {count: 2, type: a100}}}
  files: {run: 'ulimit -n', resources: {open_files: 77}}
"""
HOG = """\
name: hog
steps:
  hog:
    run: python3 -c 'x = bytearray(400 << 20); x[::4096] = b"1" * len(x[::4096])'
    resources: {memory: 100MiB}
"""
SECRET = """\
name: hush
steps:
  login: {run: 'echo "token $API_TOKEN"; test ${#API_TOKEN} = 13', secrets: [API_TOKEN]}
"""


def only_file(tiny: Tiny, text: str) -> None:
    """The project is this pipeline alone."""
    tiny.repo.put("penstock.yaml", text)
    tiny.commit("another pipeline")


def steps(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in run["steps"]}


def test_a_killed_training_goes_on_where_its_checkpoint_stood(tiny: Tiny) -> None:
    """Each attempt finds the checkpoint of the one before, and the attempt that passes is the last."""
    only_file(tiny, CONTROL)
    run = json.loads(tiny("run", "--json", PENSTOCK_GPUS="t4,a100,a100").out)
    assert run["status"] == "passed"
    assert steps(run)["train"]["attempts"] == 3
    log = tiny("logs", str(run["run"]), "train").out
    assert [line for line in log.splitlines() if line.startswith("starts")] == [f"starts at {n}" for n in range(3)]


def test_a_step_gets_the_gpus_and_limits_that_it_declares(tiny: Tiny) -> None:
    """Declared devices of the wanted kind are handed out by index; the limit of open files holds."""
    only_file(tiny, CONTROL)
    run = json.loads(tiny("run", "--json", PENSTOCK_GPUS="t4,a100,a100").out)
    assert tiny("logs", str(run["run"]), "gpu").out == "gpus=1,2\n"
    assert tiny("logs", str(run["run"]), "files").out == "77\n"


def test_what_can_never_fit_is_refused_before_anything_runs(tiny: Tiny) -> None:
    """A step that asks for GPUs that this home does not have is an error of the plan, in one sentence."""
    only_file(tiny, CONTROL)
    said = tiny("run", code=2, PENSTOCK_GPUS="t4")
    assert said.err == "penstock: step gpu asks for 2 GPUs of kind a100, and this home has 0\n"


def test_out_of_memory_is_told_apart(tiny: Tiny) -> None:
    """A step beyond its memory fails with that reason, not with an exit code."""
    only_file(tiny, HOG)
    run = tiny.run(code=1)
    assert steps(run)["hog"]["status"] == "failed"
    assert steps(run)["hog"]["reason"] == "ran out of memory"


def test_a_secret_reaches_only_its_step_and_no_log(tiny: Tiny) -> None:
    """Without its secret a step does not start; with it the value is in the step and masked in the log."""
    only_file(tiny, SECRET)
    said = tiny("run", code=3)
    assert "penstock secret set API_TOKEN" in said.out
    done = subprocess.run(
        tiny.command.argv("secret", "set", "API_TOKEN"),
        cwd=tiny.repo.folder,
        env=dict(tiny.command.environment),
        input=b"a-long-secret\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = tiny.run()
    assert tiny("logs", str(run["run"]), "login").out == "token ***\n"
    kept = [p for p in tiny.command.home.rglob("*") if p.is_file() and b"a-long-secret" in p.read_bytes()]
    assert kept == []


@pytest.mark.parametrize("failed", [True, False])
def test_a_rerun_takes_over_what_passed_or_nothing(tiny: Tiny, *, failed: bool) -> None:
    """A rerun of what failed runs that only; a plain one runs everything; both are new runs."""
    flag = tiny.command.home.parent / "fixed"
    only_file(tiny, f"name: again\nsteps:\n  a: {{run: 'true'}}\n  b: {{run: test -e {flag}, needs: a}}\n")
    first = tiny.run(code=1)
    flag.touch()
    more = ["--failed"] if failed else []
    again = json.loads(tiny("rerun", str(first["run"]), "--json", *more).out)
    assert again["run"] == first["run"] + 1
    assert steps(again)["a"]["cached"] is failed
    assert steps(again)["b"]["status"] == "passed"
