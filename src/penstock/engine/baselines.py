"""Baselines: what a gate compares with, found among releases and runs.

Red, errored, untrusted and dirty runs never become one.
"""

from dataclasses import dataclass

from penstock.engine.context import RunContext
from penstock.pipelines import BaselineName, Pipeline


@dataclass(frozen=True, slots=True)
class Reference:
    """A baseline that was found. `words` name it in a sentence: `the champion 1.2`.

    `run` is the run that built it, `package` the digest of its package, None where it has none.
    """

    words: str
    version: str
    run: int
    package: str | None


def champion_environment(pipeline: Pipeline) -> str | None:
    """The environment whose release is the champion: the named one, else the one that no other needs."""
    if pipeline.champion is not None:
        return pipeline.champion
    needed = {name for e in pipeline.environments.values() for name in e.needs}
    last = [name for name in pipeline.environments if name not in needed]
    return last[0] if len(last) == 1 else None


class Baselines:
    """Finds the baselines of one run."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def find(self, name: BaselineName) -> Reference | None:
        """What a name stands for now; None where there is none yet. A fixed number is none of ours."""
        environment = name.detail or champion_environment(self._context.pipeline)
        if environment is None:
            return None
        release = self._context.world.store.releases.serving(self._context.run.project, environment)
        if release is None:
            return None
        return Reference(f"the champion {release.version}", release.version, release.run, release.package)
