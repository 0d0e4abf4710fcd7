"""The pages keep up with the program: verbs, options, JSON, variables, statuses, transitions, links, the README."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from acceptance.tiny import end, make
from docs.diagrams import TABLES, diagram
from penstock.approvals import ApprovalStatus
from penstock.baselines import Change
from penstock.charts import Chart
from penstock.cli.baselines import Shown
from penstock.cli.main import VERBS, app
from penstock.commits import Trigger
from penstock.engine.happenings import Happening
from penstock.migrations import MigrationStatus
from penstock.pipelines import RESERVED
from penstock.plans import StepKind, plan
from penstock.rehearsals import Plan, Rehearsal
from penstock.releases import ReleaseStatus
from penstock.runners import shim
from penstock.runs import ApprovalView, AttemptStatus, EndReason, RequestStatus, RunStatus, StepStatus, TestView
from penstock.sources.definitions import load
from penstock.standings import Standing
from penstock.store.contract import DriftLook

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "penstock"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of any level; code that begins with # is no heading."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##+ |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"there is no section {title!r}"
    return found[1]


def first_cells(text: str) -> list[str]:
    """The words in backticks in the first cell of each row of a table."""
    cells = re.findall(r"^\| (`[^|]*?) \|", text, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def blocks(text: str) -> list[tuple[str, str]]:
    """The blocks of code of a page, each with its language."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


# --- commands.md ---------------------------------------------------------------------------------------------------


def options(verb: str) -> set[str]:
    """Every option in each of its spellings, and every argument by its name, as the program has them."""
    command: Any = get_command(app)
    found: set[str] = set()
    own = command.commands[verb]
    parameters = [*own.params, *(p for other in getattr(own, "commands", {}).values() for p in other.params)]
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            found.add(parameter.metavar.strip("[]"))
        elif "--help" not in parameter.opts:
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found


NAMES = [*(name for name, _ in VERBS), "baseline"]
"""The verbs of the page; those with verbs of their own are one each, or have a page."""


@pytest.mark.parametrize("verb", NAMES)
def test_every_verb_is_documented(verb: str) -> None:
    """A verb has a section with a synopsis, an example and its exit codes, and a table of exactly its options."""
    text = section(page("docs/commands.md"), f"`{verb}`")
    assert f"\n    penstock {verb}" in text
    assert "Example: `penstock" in text
    assert "Exit codes: " in text
    assert set(first_cells(text)) == options(verb)


@pytest.mark.parametrize("verb", NAMES)
def test_the_synopsis_names_every_option(verb: str) -> None:
    """The synopsis has the long spelling of every option and the name of every argument."""
    synopsis = re.findall(r"^ {4}(.*)$", section(page("docs/commands.md"), f"`{verb}`"), re.MULTILINE)
    words = set(re.findall(r"--[\w-]+|[A-Z]+", " ".join(synopsis)))
    assert {name for name in options(verb) if len(name) > 2} <= words


def test_no_verb_is_documented_that_does_not_exist() -> None:
    """The sections named after verbs are the verbs."""
    assert set(re.findall(r"^### `(\w+)`$", page("docs/commands.md"), re.MULTILINE)) == set(NAMES)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Any]]:
    """What each verb with `--json` printed of a real run that was released."""
    folder = tmp_path_factory.mktemp("json")
    tiny = make(folder)
    run = tiny.run()
    yield {
        "The run object": run,
        "runs": tiny("runs", "--json").json[0],
        "show": tiny("show", "1", "--json").json,
        "The plan object": tiny("plan", "--json").json,
        "The status object": tiny("status", "--json").json,
        "The lineage object": tiny("lineage", run["version"], "--json").json,
        "The doctor list": tiny("doctor", "--json").json[0],
    }
    end(tiny.command, tiny.repo.folder)


OPEN = {"metrics", "files", "inputs", "variables", "chart"}
"""Objects whose keys are a person's own (metrics, paths, steps and variables) or have a table of their own."""


JSON = pytest.mark.xdist_group("json")
"""One process makes the run that these tests share."""


def keys(value: Any, before: str = "") -> Iterator[str]:
    """The path of every key of an object: `steps[].name`, `package.digest`."""
    for name, inner in value.items():
        path = f"{before}{name}"
        yield path
        if isinstance(inner, dict) and name not in OPEN:
            yield from keys(inner, f"{path}.")
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield from keys(inner[0], f"{path}[].")


@pytest.mark.parametrize(
    "title", ["The run object", "The plan object", "The status object", "The lineage object", "The doctor list"]
)
@JSON
def test_every_key_of_the_json_is_documented(printed: Mapping[str, Any], title: str) -> None:
    """The table of an object has exactly the keys that the program prints, in their order."""
    assert first_cells_of_keys(section(page("docs/commands.md"), title)) == list(keys(printed[title]))


@pytest.mark.parametrize(
    ("title", "value", "more"),
    [
        ("The chart object", Chart, []),
        ("The test object", TestView, []),
        ("The approval object", ApprovalView, []),
        ("The plan list", Plan, ["sentence"]),
        ("The baseline list", Shown, []),
        ("The history list", Change, []),
        ("The environment history", Happening, []),
        ("The rollout object", Standing, []),
        ("The drift object", DriftLook, []),
        ("The self-test list", Rehearsal, ["sentence"]),
    ],
)
def test_every_field_of_a_value_is_documented(title: str, value: Any, more: list[str]) -> None:
    """The table of an object that is a value of ours has exactly its fields, in their order."""
    documented = first_cells_of_keys(section(page("docs/commands.md"), title))
    assert documented == [*(field.name for field in fields(value)), *more]


def first_cells_of_keys(text: str) -> list[str]:
    return re.findall(r"^\| `([\w.\[\]]+)` \|", text, re.MULTILINE)


@pytest.mark.parametrize("verb", ["runs", "show"])
@JSON
def test_a_run_is_the_same_object_everywhere(printed: Mapping[str, Any], verb: str) -> None:
    """`runs` and `show` print what `run` printed."""
    assert printed[verb] == printed["The run object"]


WHOLE = {"The run object": ("steps", "gates", "package", "releases"), "The status object": ("environments",)}


@pytest.mark.parametrize(("title", "key"), [(title, key) for title, names in WHOLE.items() for key in names])
@JSON
def test_the_example_behind_the_json_is_whole(printed: Mapping[str, Any], title: str, key: str) -> None:
    """The run that the tables are compared with has everything that an object can hold."""
    assert printed[title][key]


# --- variables -----------------------------------------------------------------------------------------------------


def named(*folders: str) -> set[str]:
    """The PENSTOCK_ variables that stand as a whole text in the files of some folders."""
    files = [file for folder in folders for file in (SOURCE / folder).rglob("*.py")]
    return {name for file in files for name in re.findall(r'"(PENSTOCK_[A-Z_]+)"', file.read_text(encoding="utf-8"))}


def test_every_variable_of_a_process_is_documented() -> None:
    """What the engine and the shim set for steps, replicas and commands stands in a table of theirs, and no more."""
    pages = ("step-contract", "serving", "elsewhere", "watching")
    tables = "".join(page(f"docs/{name}.md") for name in pages)
    documented = {name for name in first_cells(tables) if name.startswith("PENSTOCK_")}
    assert documented == named("engine")
    assert f"`{shim.MARKER}`" in tables


def test_what_the_program_reads_is_documented() -> None:
    """The variables that the command line reads of a person's environment stand on the page about commands."""
    text = section(page("docs/commands.md"), "Words that come again")
    read = re.findall(r'environment\.get\("(PENSTOCK_\w+)"', (SOURCE / "cli" / "settings.py").read_text())
    assert sorted(first_cells(text)) == sorted(read)


# --- architecture.md -----------------------------------------------------------------------------------------------

STATUSES: Mapping[str, type[StrEnum]] = {
    "Run status": RunStatus,
    "Step status": StepStatus,
    "Attempt status": AttemptStatus,
    "End reason": EndReason,
    "Request status": RequestStatus,
    "Release status": ReleaseStatus,
    "Approval status": ApprovalStatus,
    "Migration status": MigrationStatus,
    "Step kind": StepKind,
    "Trigger": Trigger,
}


@pytest.mark.parametrize("title", STATUSES)
def test_every_status_is_documented(title: str) -> None:
    """Each table of words has exactly the words of its enumeration."""
    assert sorted(first_cells(section(page("docs/architecture.md"), title))) == sorted(map(str, STATUSES[title]))


@pytest.mark.parametrize("title", TABLES)
def test_diagrams_are_the_tables(title: str) -> None:
    """A diagram is what its table in the code draws (`python tests/docs/diagrams.py` prints them)."""
    assert blocks(section(page("docs/architecture.md"), title)) == [("", f"{diagram(*TABLES[title])}\n")]


def test_every_room_of_the_house_is_on_the_plan() -> None:
    """The page about the house names every file of the root and every folder, and none that does not exist."""
    shown = re.findall(r"^  (\w+(?:\.py|/)) ", section(page("docs/architecture.md"), "The house"), re.MULTILINE)
    files = {p.name for p in SOURCE.glob("*.py") if not p.name.startswith("__")}
    folders = {f"{p.name}/" for p in SOURCE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert set(shown) == files | folders


# --- pipeline-file.md ----------------------------------------------------------------------------------------------


def test_reserved_step_names_are_documented() -> None:
    """Names that a step cannot have stand where names of steps are explained."""
    text = section(page("docs/pipeline-file.md"), "`steps`")
    assert [name for name in RESERVED if f"`{name}`" not in text] == []


# --- links ---------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The names that the headings of a page can be linked by."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_link_is_dead(file: Path) -> None:
    """Every relative link leads to a file of the repository, and to a heading where it names one."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (file.parent / path).resolve() if path else file
        if not aim.exists() or (anchor and anchor not in anchors(aim.read_text(encoding="utf-8"))):
            dead.append(target)
    assert dead == []


def test_every_page_can_be_reached() -> None:
    """Each page of the documentation is linked from its index, and each decision from the list of decisions."""
    index, decisions = page("docs/index.md"), page("docs/decisions/README.md")
    lost = [p.name for p in DOCS.glob("*.md") if p.name != "index.md" and f"({p.name})" not in index]
    lost += [p.name for p in (DOCS / "decisions").glob("0*.md") if f"({p.name})" not in decisions]
    assert lost == []


# --- README.md -----------------------------------------------------------------------------------------------------


def readme_file() -> str:
    (text,) = [text for language, text in blocks(page("README.md")) if language == "yaml"]
    return text


def test_the_readme_file_is_sound() -> None:
    """The README's penstock.yaml loads, and is no longer than a first screen allows."""
    assert load(readme_file().encode(), "README.md").environments
    assert len(readme_file().splitlines()) <= 21


def test_the_picture_is_of_that_file() -> None:
    """The terminal picture shows every step, gate and environment of the README's file, within 90 columns."""
    pipeline = load(readme_file().encode(), "README.md")
    picture = next(text for _, text in blocks(page("README.md")) if "run 1" in text)
    shown = set(re.findall(r"^  \S (\w+) ", picture, re.MULTILINE))
    assert shown == {*plan(pipeline).names, *pipeline.gates, *pipeline.environments}
    assert max(map(len, picture.splitlines())) <= 90


def test_the_two_commands_exist() -> None:
    """`make demo` and `make test` of the README are targets of the Makefile, and CI runs the second."""
    targets = set(re.findall(r"^(\w+):", page("Makefile"), re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"^ {4}make (\w+)", page("README.md"), re.MULTILINE)) & targets
    assert re.search(r"^make test$", page(".ci/run"), re.MULTILINE)
