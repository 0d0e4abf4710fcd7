"""What is wrong with environments, though each value of them is fine: names, ports, files of the package."""

from collections.abc import Iterator

from penstock.outlines import Flaw, loop_of, told
from penstock.patterns import matches
from penstock.pipelines import Pipeline
from penstock.values import shortened


def environment_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    """What is wrong with environments, and with what they ask of the package."""
    ports: dict[int, str] = {}
    known = tuple(pipeline.environments)
    for name, environment in pipeline.environments.items():
        for n, need in enumerate(environment.needs):
            if need == name:
                yield Flaw(("environments", name, "needs", n), f'environment "{name}" needs itself')
            elif need not in pipeline.environments:
                sentence = f'no environment is named "{shortened(need)}"'
                yield Flaw(("environments", name, "needs", n), sentence, need, known, ("environments", need))
        if environment.port is not None and (other := ports.setdefault(environment.port, name)) != name:
            sentence = f'the port {environment.port} is that of environment "{other}" too: choose another'
            yield Flaw(("environments", name, "port"), sentence)
    wanted = {
        name: [n for n in e.needs if n in pipeline.environments and n != name]
        for name, e in pipeline.environments.items()
    }
    if loop := loop_of(wanted):
        place = pipeline.environments[loop[0]].needs.index(loop[1])
        sentence = f"the environments need each other in a loop: {told(loop)}"
        yield Flaw(("environments", loop[0], "needs", place), sentence)
    yield from _config_flaws(pipeline)
    yield from _probe_flaws(pipeline)
    yield from _drift_flaws(pipeline)
    yield from _serve_flaws(pipeline)


def _config_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    """Templates that the package does not hold, and names of files that the pipeline has for something else."""
    contents = () if pipeline.package is None else pipeline.package.contents
    for name, environment in pipeline.environments.items():
        for n, file in enumerate(environment.config):
            where = ("environments", name, "config")
            if contents and not any(matches(pattern, file.template) for pattern in contents):
                sentence = f'the template "{shortened(file.template)}" is no file of the package: add it to its code'
                yield Flaw((*where, n, "template"), sentence, lacking=("package", "code"))
            if file.told_as is not None and file.told_as in pipeline.variables:
                sentence = f'"{file.told_as}" is a variable of the pipeline already: choose another name'
                yield Flaw((*where, n, "as"), sentence)


def _probe_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    """Recorded requests that no release could be asked, for the package does not hold them."""
    contents = () if pipeline.package is None else pipeline.package.contents
    for name, environment in pipeline.environments.items():
        file = None if environment.probe is None else environment.probe.requests
        if file is not None and contents and not any(matches(pattern, file) for pattern in contents):
            sentence = f'the recorded requests "{shortened(file)}" are no file of the package: add them to its code'
            yield Flaw(("environments", name, "probe", "requests"), sentence, lacking=("package", "code"))


def _drift_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    """Samples that the package does not hold, and runs asked for by environments that watch nothing."""
    contents = () if pipeline.package is None else pipeline.package.contents
    for name, environment in pipeline.environments.items():
        rules = environment.drift
        if rules is not None and contents and not any(matches(pattern, rules.reference) for pattern in contents):
            sentence = f'the sample "{shortened(rules.reference)}" is no file of the package: add it to its code'
            yield Flaw(("environments", name, "drift", "reference"), sentence, lacking=("package", "code"))
    known = tuple(pipeline.environments)
    for n, name in enumerate(() if pipeline.on is None else pipeline.on.drift):
        if name not in pipeline.environments:
            sentence = f'no environment is named "{shortened(name)}"'
            yield Flaw(("on", "drift", n), sentence, name, known, ("environments", name))
        elif pipeline.environments[name].drift is None:
            sentence = (
                f'environment "{name}" does not watch for drift: add drift: FILE to it, with a sample of requests'
            )
            yield Flaw(("on", "drift", n), sentence, lacking=("environments", name, "drift"))


def _serve_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    if not pipeline.environments:
        return
    if pipeline.package is None:
        sentence = "an environment needs a package to release: add package with model, code and serve"
        yield Flaw(("environments",), sentence, lacking=("package",), at_key=True)
    elif pipeline.package.serve is None and any(e.deploy is None for e in pipeline.environments.values()):
        sentence = "an environment needs a package that serves: add serve: COMMAND to the package"
        yield Flaw(("environments",), sentence, lacking=("package", "serve"), at_key=True)


def champion_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    """What is wrong with which environment holds the champion."""
    known = tuple(pipeline.environments)
    if pipeline.champion is not None:
        if pipeline.champion not in known:
            sentence = f'no environment is named "{shortened(pipeline.champion)}"'
            yield Flaw(("champion",), sentence, pipeline.champion, known, ("environments", pipeline.champion))
        return
    needed = {need for environment in pipeline.environments.values() for need in environment.needs}
    last = [name for name in known if name not in needed]
    if len(last) > 1 and needed.issubset(known):  # else a misspelt need is the mistake, and told already
        sentence = f'no environment needs "{last[0]}" or "{last[1]}": say which holds the champion, as champion: NAME'
        yield Flaw(("environments",), sentence, lacking=("champion",), at_key=True)
