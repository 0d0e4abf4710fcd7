"""Where a run comes from, as later ones that are compared with it must know: data, hardware, seeds."""

import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from penstock.baselines import Origin, data_digest, leaves_numbers, seeds_of
from penstock.cache.contract import BlobError
from penstock.engine.context import RunContext
from penstock.engine.scheduling import Capacity
from penstock.engine.variables import SEED
from penstock.pipelines import Step
from penstock.plans import fingerprint_name, step_inputs
from penstock.values import family_of


def origin_of(context: RunContext, only: Collection[str] | None = None) -> Origin:
    """Where a run comes from: the data of its steps that leave numbers (or only of some), this machine, the seeds."""
    steps = [
        step
        for step in context.pipeline.steps.values()
        if leaves_numbers(step) and "." not in family_of(step.name) and (only is None or step.name in only)
    ]
    found = {step.name: data for step in steps if (data := _data(context, step)) is not None}
    return Origin(found, hardware(context.world.capacity), seeds_of(context.pipeline, SEED))


def _data(context: RunContext, step: Step) -> str | None:
    """The digest of the data that a step found; None where it found none, or its inputs are gone."""
    needs = tuple(need for need in context.plan[step.name].needs if need in context.pipeline.steps)
    told = fingerprint_name(step)
    state = context.result(told).get("outside") if told in context.records else None
    package = context.pipeline.package
    try:
        inputs = step_inputs(step, context.files.tree, context.outputs(needs))
    except BlobError:
        return None
    model = (package.model or ()) if package is not None else ()
    return data_digest(inputs, model, {} if state is None else {told: str(state)})


def hardware(capacity: Capacity) -> dict[str, Any]:
    """What figures depend on of this machine: its kind, its processors and its GPUs."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count() or 1,
        "gpus": [gpu.kind for gpu in capacity.gpus],
    }


def _processor(file: Path = Path("/proc/cpuinfo")) -> str:
    """What the processor calls itself; empty where the system does not tell."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    names: Mapping[str, str] = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    return names.get("model name", "")
