"""The verb `init`: what a repository holds → a first pipeline file, and what could not be found.

Nothing of the repository is executed. What is not certain stands in the file as a comment, and a threshold always
does: only a person knows what is good enough.
"""

import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.artifacts import overlaps
from penstock.cli.drafts import Draft, DraftPackage, DraftStep, argument
from penstock.cli.repositories import Repository, is_file_name, is_test
from penstock.cli.runtime_choices import RuntimeChoice, choose_runtime, project_name
from penstock.cli.scripts import Script

MAX_INPUTS = 20
"""A step with more is given the whole commit."""

_NUMBERED = r"(\d+[_-])?"
_TRAIN = re.compile(rf"{_NUMBERED}(train|fit|training)([_-].*)?")
_EVALUATE = re.compile(rf"{_NUMBERED}(eval|evaluate|evaluation|score|validate)([_-].*)?")
_PREPARE = re.compile(
    rf"{_NUMBERED}(data|dataset|(prepare|preprocess|preprocessing|process|make|download|fetch|get|build|split)([_-].*)?)"
)
_SERVE = re.compile(r"(serve|server|serving|app|api|main|wsgi|asgi|service|web)([_-].*)?")
_METRICS = re.compile(r".*(metric|score|result|eval).*\.json")
_MODEL_ENDINGS = tuple(
    """.joblib .pkl .pickle .pt .pth .safetensors .onnx .h5 .keras .ckpt
    .cbm .ubj .gguf .tflite .bst .mlmodel""".split()  # noqa: SIM905 - endings read best as a row
)
_MODEL_FOLDERS = frozenset({"model", "models", "weights", "checkpoints", "artifacts", "saved_model", "saved_models"})
_DATA_ENDINGS = tuple(
    """.csv .tsv .parquet .feather .npz .npy .json .jsonl
    .h5 .hdf5 .arrow .pkl .pt .txt""".split()  # noqa: SIM905 - endings read best as a row
)
_DATA_FOLDERS = frozenset({"data", "dataset", "datasets", "processed", "features"})
_SETTINGS = ("data", "dataset", "datasets", "config", "configs", "conf", "config.yaml", "config.yml", "config.json")
_TEST_SETTINGS = ("conftest.py", "pytest.ini", "pyproject.toml", "setup.cfg", "tox.ini")
_HEALTH = ("/health", "/healthz", "/healthcheck", "/health/ready", "/ready", "/readyz", "/livez", "/live", "/ping")
_INTEGRATION = frozenset({"integration", "e2e", "functional", "acceptance", "system"})


def scaffold(folder: Path) -> tuple[str, list[str]]:
    """The text of a commented `penstock.yaml` for a folder, and a sentence for each thing that was not found.

    The text is a valid pipeline file, and every file that it names exists in the folder or is another step's output.
    """
    repository = Repository(folder)
    runtime = choose_runtime(repository)
    return _Scaffold(repository, runtime).finished()


@dataclass(frozen=True, slots=True)
class _Serving:
    """A module that serves, the command for it, and the path that tells whether it can."""

    script: Script
    command: str
    health: str | None


class _Scaffold:
    """One draft being made: what is found becomes steps, what is not becomes a remark."""

    def __init__(self, repository: Repository, runtime: RuntimeChoice) -> None:
        self._repository = repository
        self._runtime = runtime
        self._python = "python" if runtime.source else "python3"  # not every PATH has a `python`
        self._remarks = [*_limits(repository), *runtime.remarks]
        self._paths = list(repository.sources)

    def finished(self) -> tuple[str, list[str]]:
        """The text and the remarks."""
        repository = self._repository
        train = self._pick(_TRAIN, self._trains) or self._pick(re.compile(".*"), self._writes_model)
        evaluate = self._pick(_EVALUATE, lambda s: s is not train)
        prepare = self._pick(_PREPARE, lambda s: s not in (train, evaluate) and bool(self._made(s)))
        steps = self._chain(prepare, train, evaluate)
        model = next((s.outputs for s in steps if s.name == "train"), ())
        serving = self._serving()
        package = self._package(model, serving, found_train=train is not None)
        if evaluate is not None and not self._can_ask(evaluate, package):
            self._remarks.append(f"{evaluate.path} asks a package, which the file does not have yet: left out")
            steps = [s for s in steps if s.name != "evaluate"]
        steps += self._tests(package, steps)
        if not steps:
            steps = [self._check_only()]
        self._tell_rest(train)
        choice = self._runtime.entries
        if self._paths:
            choice = (*choice, ("path", tuple(dict.fromkeys(self._paths)), "put on PYTHONPATH"))
        name = project_name(repository)
        prefix = repository.prefix if repository.is_nameable else ""
        draft = Draft(name, choice, tuple(steps), package, prefix=prefix)
        return draft.text, self._remarks

    # --- the scripts that are steps --------------------------------------------------------------------------------

    def _pick(self, names: re.Pattern[str], fits: Callable[[Script], bool]) -> Script | None:
        """The script of such a name that runs; the shortest name nearest to the top, where there are several."""
        found = [s for s in self._repository.programs if s.runs and names.fullmatch(_stem(s.path)) and fits(s)]
        return min(found, key=lambda s: (len(_stem(s.path)), s.path.count("/"), s.path), default=None)

    def _trains(self, script: Script) -> bool:
        return not script.applications

    def _writes_model(self, script: Script) -> bool:
        is_other = _EVALUATE.fullmatch(_stem(script.path)) or _PREPARE.fullmatch(_stem(script.path))
        return not is_other and not script.applications and bool(self._models(script))

    def _chain(self, prepare: Script | None, train: Script | None, evaluate: Script | None) -> list[DraftStep]:
        """Data, training and evaluation; each finds what those before it write, and none what those after it do."""
        data = _apart(self._made(prepare) if prepare else (), self._models(train) if train else ())
        steps: list[DraftStep] = []
        if prepare is not None and data:
            steps.append(self._script_step("data", "makes the data", prepare, (), data))
        if train is not None:
            hints = () if self._models(train) else ("outputs: [models/]  # what it writes was not found: name it",)
            step = self._script_step("train", "makes the model", train, steps, self._models(train))
            steps.append(replace(step, metrics=self._metrics(train), hints=hints))
        if evaluate is not None:
            step = self._script_step("evaluate", "judges the model", evaluate, steps, ())
            hints = (f"evidence: {self._table(evaluate)}  # a CSV of id, truth and prediction: Penstock scores it",)
            steps.append(replace(step, metrics=self._metrics(evaluate), hints=hints))
        return [self._freed(step, steps[n + 1 :], steps[:n]) for n, step in enumerate(steps)]

    def _script_step(
        self, name: str, why: str, script: Script, before: Iterable[DraftStep], outputs: tuple[str, ...]
    ) -> DraftStep:
        if script.arguments:
            wanted = ", ".join(filter(str.isprintable, script.arguments[:5]))
            self._remarks.append(f"{script.path} wants arguments ({wanted}): add them to run of the step {name}")
        if self._repository.needs_top(script):
            self._paths.append(".")
        earlier = tuple(before)
        asks = _asks_package(script)
        made = {path for step in earlier for path in step.outputs if not (asks and step.name == "train")}
        inputs = self._inputs([script], made, [*_SETTINGS])
        needs = ("package",) if asks else tuple(s.name for s in earlier if s.outputs) if inputs is None else ()
        return DraftStep(name, why, self._repository.command(script, self._python), inputs, outputs, needs)

    def _freed(self, step: DraftStep, later: list[DraftStep], before: list[DraftStep]) -> DraftStep:
        """The step with the whole commit, where naming its inputs would make it need a step that comes after it."""
        made = [path for other in later for path in other.outputs]
        if not any(overlaps(one, two) for one in step.inputs or () for two in made):
            return step
        needs = (*step.needs, *(s.name for s in before if s.outputs))
        hint = "inputs: all of the commit, since a later step writes into a folder that this one reads"
        return replace(step, inputs=None, needs=tuple(dict.fromkeys(needs)), hints=(*step.hints, hint))

    def _inputs(self, scripts: Iterable[Script], made: Iterable[str], more: Iterable[str]) -> tuple[str, ...] | None:
        """All that the scripts import and name, and what steps before them made; None where that is not known."""
        repository, known = self._repository, self._repository.closure(scripts)
        if repository.unread(known):
            return None
        settings = {
            f"{p}/" if p in repository.folders else p for p in more if p in repository.folders or p in repository
        }
        found = _topmost({*repository.code(known), *repository.data(known), *settings, *made})
        return found if len(found) <= MAX_INPUTS else None

    # --- what scripts write ----------------------------------------------------------------------------------------

    def _models(self, script: Script) -> tuple[str, ...]:
        """Where a script leaves a model: what it or a file it imports writes, else what it names like a model."""
        files = self._repository.closure([script])
        named = {p for p in script.named if p.endswith(_MODEL_ENDINGS) and p not in self._repository}
        written = {p for s in files for p in s.written if _is_of(p, _MODEL_ENDINGS, _MODEL_FOLDERS)}
        return self._outputs(p for p in written or named if not _METRICS.fullmatch(posixpath.basename(p)))

    def _made(self, script: Script) -> tuple[str, ...]:
        """Where a script leaves data, by what it or a file it imports writes."""
        files = self._repository.closure([script])
        return self._outputs(
            p for s in files for p in s.written if _is_of(p, _DATA_ENDINGS, _DATA_FOLDERS) and not _is_metrics(p)
        )

    def _outputs(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Files and folders as outputs: a whole folder where the commit has nothing in it, else single files."""
        kept = {p for p in paths if is_file_name(p.rstrip("/")) and posixpath.basename(p.rstrip("/"))[:1] != "."}
        files = {p for p in kept if not p.endswith("/")}
        found = {self._whole(p) for p in files} or {p for p in kept if not any(self._repository.below(p))}
        return _topmost(found)

    def _whole(self, path: str) -> str:
        folder = posixpath.dirname(path)
        return f"{folder}/" if folder and not any(self._repository.below(folder)) else path

    def _metrics(self, script: Script) -> str | None:
        found = {p for s in self._repository.closure([script]) for p in s.written} | script.named
        return min((p for p in found if _is_metrics(p) and is_file_name(p)), key=lambda p: ("/" in p, p), default=None)

    def _table(self, script: Script) -> str:
        found = (p for p in script.written if p.endswith(".csv") and is_file_name(p))
        table = min(found, default="")
        return posixpath.join(self._repository.prefix, table) if table else "FILE"

    # --- the package -----------------------------------------------------------------------------------------------

    def _serving(self) -> _Serving | None:
        """The module that serves, by its name and what is in it."""
        fitting = [s for s in self._repository.programs if s.applications or _listens(s)]
        order = sorted(fitting, key=lambda s: (not _SERVE.fullmatch(_stem(s.path)), s.path.count("/"), s.path))
        for script in order:
            if (command := self._serve_command(script)) is not None:
                return _Serving(script, command, self._health(script))
        for script in order[:1]:
            self._remarks.append(f"{script.path} has a web application, but no command for it was found: write serve")
        return None

    def _serve_command(self, script: Script) -> str | None:
        if _listens(script):
            if self._repository.needs_top(script):
                self._paths.append(".")
            return self._repository.command(script, self._python)
        module = self._repository.module(script.path)
        if module is None or not script.applications:
            return None
        application = min(script.applications, key=lambda a: a.factory)
        if application.kind == "asgi":
            self._want("uvicorn", script.path)
            factory = " --factory" if application.factory else ""
            return f"uvicorn{factory} {module}:{application.name} --host 127.0.0.1 --port $PORT"
        return self._flask_command(module, application.name, factory=application.factory)

    def _flask_command(self, module: str, name: str, *, factory: bool) -> str:
        target = f"{module}:{name}()" if factory else f"{module}:{name}"
        if self._runtime.has("gunicorn"):
            return f"gunicorn --bind 127.0.0.1:$PORT {argument(target)}"
        if self._runtime.has("waitress"):
            call = "--call " if factory else ""
            return f"waitress-serve --listen=127.0.0.1:$PORT {call}{module}:{name}"
        self._remarks.append("Flask's own server is for development: add gunicorn or waitress, and change serve")
        return f"flask --app {argument(target)} run --host 127.0.0.1 --port $PORT"

    def _health(self, script: Script) -> str | None:
        files = self._repository.closure([script])
        routes = {r for s in files for r in s.routes} | {w for s in files if _listens(s) for w in s.words}
        found = next((path for path in (*_HEALTH, "/") if path in routes), None)
        if found is None:
            self._remarks.append(
                f"{script.path} has no route such as /health: add one that answers 200, then write environments out"
            )
        return found

    def _package(self, model: tuple[str, ...], serving: _Serving | None, *, found_train: bool) -> DraftPackage | None:
        """The deployable, or None where no model is found."""
        if not model and serving is not None:
            named = self._repository.data(self._repository.closure([serving.script]))
            model = tuple(sorted(p for p in named if p.endswith(_MODEL_ENDINGS)))
        if not model:
            if found_train or serving is not None:
                self._remarks.append("no file was found that is the model: name the outputs of train and write package")
            return None
        if serving is None:
            self._remarks.append(
                "nothing was found that serves the model: the package has no serve, and no environment"
            )
            return DraftPackage(model, (), None, None)
        code = self._served_code(serving.script, model)
        return DraftPackage(model, code, serving.command, serving.health)

    def _served_code(self, script: Script, model: tuple[str, ...]) -> tuple[str, ...]:
        repository, files = self._repository, self._repository.closure([script])
        beside = (posixpath.join(posixpath.dirname(script.path), name) for name in ("templates", "static"))
        pages = {f"{folder}/" for folder in beside if folder in repository.folders}
        return _topmost(p for p in repository.code(files) | repository.data(files) | pages if p not in model)

    def _can_ask(self, script: Script, package: DraftPackage | None) -> bool:
        """Whether there is the package that the script asks for, served where it asks over HTTP."""
        is_served = package is not None and package.serve is not None
        return is_served or (not script.says("PENSTOCK_URL") and (package is not None or not _asks_package(script)))

    # --- tests, and the rest ---------------------------------------------------------------------------------------

    def _tests(self, package: DraftPackage | None, steps: list[DraftStep]) -> Iterator[DraftStep]:
        """A step for each group of tests; those that ask a served package need one."""
        tests = [p for p in self._repository.files if _is_test_file(p)]
        groups: dict[str, list[str]] = {}
        for path in tests:
            groups.setdefault(self._group(path), []).append(path)
        for name, files in sorted(groups.items(), reverse=True):  # unit first
            scripts = [self._repository.scripts[p] for p in files if p in self._repository.scripts]
            if not all(self._can_ask(s, package) for s in scripts):
                self._remarks.append(f"{_few(files)} asks a package, which the file does not have yet: left out")
                continue
            yield self._test_step(name, files, ("package",) if any(map(_asks_package, scripts)) else (), steps)

    def _group(self, path: str) -> str:
        script = self._repository.scripts.get(path)
        is_integration = bool(_INTEGRATION & set(path.split("/"))) or (script is not None and _asks_package(script))
        return "integration" if is_integration else "unit"

    def _test_step(self, name: str, files: list[str], needs: tuple[str, ...], steps: list[DraftStep]) -> DraftStep:
        repository = self._repository
        scripts = [repository.scripts[p] for p in files if p in repository.scripts]
        patterns = self._test_patterns(name, files)
        named = {p for s in scripts for p in s.read | s.named}
        made = {
            o for s in steps for o in s.outputs if any(overlaps(o, p) for p in named if is_file_name(p.rstrip("/")))
        }
        more = [*_TEST_SETTINGS, *repository.sources, *(f for p in patterns for f in _settings_above(p))]
        inputs = self._inputs(scripts, {*made, *patterns}, more) if len(scripts) == len(files) else None
        run, report = self._test_command(scripts, patterns), "junit.xml"
        if " unittest " in run:
            return DraftStep(name, "tests", run, inputs, needs=needs)
        return DraftStep(name, "tests", f"{run} --junitxml={report}", inputs, needs=needs, report=report)

    def _test_patterns(self, name: str, files: list[str]) -> tuple[str, ...]:
        """The folders of a group, where they hold no test of another group; else its files."""
        found: set[str] = set()
        for path in files:
            folders = [f for f in _above(path) if is_test(f)]
            whole = [f for f in folders if self._is_all(name, f)]
            found.add(f"{whole[-1]}/" if whole else path)
        return _topmost(found)

    def _is_all(self, name: str, folder: str) -> bool:
        return all(self._group(p) == name for p in self._repository.below(folder) if _is_test_file(p))

    def _test_command(self, scripts: Iterable[Script], patterns: tuple[str, ...]) -> str:
        imports = {n.partition(".")[0] for s in scripts for n in s.imports}
        is_folder = len(patterns) == 1 and patterns[0].endswith("/")
        if is_folder and "unittest" in imports and "pytest" not in imports and not self._runtime.has("pytest"):
            return f"{self._python} -m unittest discover -s {argument(patterns[0].rstrip('/'))}"
        self._want("pytest", "the step of the tests")
        shown = " ".join(argument(p.rstrip("/")) for p in patterns) if len(patterns) <= MAX_INPUTS else ""
        return f"{self._python} -m pytest {shown}".rstrip()

    def _want(self, package: str, by: str) -> None:
        """Remark on a package that the runtime lacks."""
        if self._runtime.source and not self._runtime.has(package):
            self._remarks.append(f"{by} needs {package}, which {self._runtime.source} does not name: add it")

    def _check_only(self) -> DraftStep:
        self._remarks.append(
            "neither training nor tests were found: the only step compiles the Python files, as a beginning"
        )
        has_code = any(p.endswith(".py") for p in self._repository.files)
        inputs = ("**/*.py",) if has_code else None
        return DraftStep(
            "compile", "only a beginning: put your own steps here", f"{self._python} -m compileall -q .", inputs
        )

    def _tell_rest(self, train: Script | None) -> None:
        """Remarks on what the repository holds and the file does not use."""
        names = self._repository.files
        if train is None:
            idle = [s.path for s in self._repository.programs if _TRAIN.fullmatch(_stem(s.path)) and not s.runs]
            self._remarks += [f"{p} does nothing when it is executed: name the command that trains" for p in idle[:1]]
        if train is None and (notebooks := [p for p in names if p.endswith(".ipynb")]):
            self._remarks.append(f"{_few(notebooks)} is a notebook, and a step runs a command: make a script of it")
        if found := [p for p in names if posixpath.basename(p) in {"Dockerfile", "Containerfile"}]:
            self._remarks.append(
                f"{_few(found)} is not used: runtime: {{dockerfile: {found[0]}}} runs all steps in its image"
            )
        if found := [p for p in names if posixpath.basename(p) in {"dvc.yaml", "MLproject", "Makefile"}]:
            self._remarks.append(f"{_few(found)} was not read: its commands may be what run should say")


# --- what names tell -----------------------------------------------------------------------------------------------


def _limits(repository: Repository) -> Iterator[str]:
    if not repository.is_nameable:
        yield "the folder's path has signs that a pipeline file cannot hold: nothing of it is named; rename the folder"
    elif repository.prefix:
        yield f"the folder lies in a repository: paths start at its top, so they begin with {repository.prefix}/"
    if repository.is_cut:
        yield "the repository has very many files: only those nearest to its top were looked at"
    if repository.unnamed:
        yield f"{repository.unnamed} files have names that a pipeline file cannot hold (such as * ? [ $ \\): left out"


def _stem(path: str) -> str:
    """The name without ending, in plain small letters."""
    name = posixpath.basename(path).removesuffix(".py")
    return unicodedata.normalize("NFKC", name).lower()


def _is_of(path: str, endings: tuple[str, ...], folders: frozenset[str]) -> bool:
    name = posixpath.basename(path.rstrip("/"))
    if not path.endswith("/") and "." in name:
        return name.endswith(endings) and not name.startswith(".")
    return bool(folders & set(path.lower().rstrip("/").split("/")))


def _is_metrics(path: str) -> bool:
    return _METRICS.fullmatch(posixpath.basename(path).lower()) is not None


def _asks_package(script: Script) -> bool:
    return script.says("PENSTOCK_URL") or script.says("PENSTOCK_PACKAGE")


def _listens(script: Script) -> bool:
    """Whether it is a server that is executed by itself and takes its port from $PORT."""
    return script.runs and script.says("PORT") and not is_test(script.path)


def _is_test_file(path: str) -> bool:
    name = posixpath.basename(path)
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))


def _above(path: str) -> list[str]:
    """The folders above a path, nearest first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _settings_above(pattern: str) -> Iterator[str]:
    """Files in the folders above a group of tests that pytest reads too."""
    for folder in _above(pattern.rstrip("/")):
        yield from (f"{folder}/{name}" for name in ("conftest.py", "__init__.py"))


def _topmost(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths in order, without those below another one that is a folder."""
    found = sorted(set(paths))
    folders = [p for p in found if p.endswith("/")]
    return tuple(p for p in found if not any(p.startswith(f) and p != f for f in folders))


def _apart(paths: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """The paths that collide with none of the others."""
    return tuple(p for p in paths if not any(overlaps(p, other) for other in others))


def _few(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} (and {len(paths) - 1} more)"
