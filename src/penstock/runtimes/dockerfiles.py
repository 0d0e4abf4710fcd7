"""Dockerfiles as text: their instructions, the images that they build upon, and the same text with those pinned.

Standard library only: the script that builds an image reads the Dockerfile with it too.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*?)\s*")
_HEREDOC = re.compile(r"[0-9]*<<(-?)([^<]+)")
_WITH_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})
_FLAG = re.compile(r"--[a-z][a-z0-9-]*(?:=\S*)?")
_VARIABLE = re.compile(r"\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?:(?P<operator>:?[-+?])(?P<word>[^{}]*))?\})")
_NO_IMAGE = frozenset({"scratch", ""})


class DockerfileError(ValueError):
    """A Dockerfile that cannot be read: one sentence, with its place."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: the numbers of its first line and of the one after its last (from 1), name and arguments.

    `name` is in capitals; `text` is what follows it, continuations joined and comments left out; `body_line` is the
    number of the line after its own lines, where its here-documents begin.
    """

    line: int
    end: int
    body_line: int
    name: str
    text: str

    @property
    def flags(self) -> dict[str, list[str]]:
        """Its flags with their values in order: `--from=a` reads `{"from": ["a"]}`; one without a value has ''."""
        found: dict[str, list[str]] = {}
        for word in self._flag_words():
            name, _, value = word[2:].partition("=")
            found.setdefault(name, []).append(value.strip("\"'"))
        return found

    def _flag_words(self) -> Iterator[str]:
        for word in self.text.split():
            if not _FLAG.fullmatch(word):
                return
            yield word

    @property
    def operands(self) -> str:
        """What follows the flags."""
        rest = self.text
        for word in self._flag_words():
            rest = rest.lstrip()[len(word) :]
        return rest.strip()


@dataclass(frozen=True, slots=True)
class Upon:
    """An image that a Dockerfile takes from outside: its name, and the platform it is asked for, if any."""

    image: str
    platform: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A Dockerfile that was read: its lines, its escape character, its instructions; `name` is for sentences."""

    name: str
    lines: tuple[str, ...]
    escape: str
    instructions: tuple[Instruction, ...] = field(default=())

    def place(self, line: int) -> str:
        return f"{self.name}:{line}"


def read(name: str, data: bytes) -> Dockerfile:
    """The instructions of a Dockerfile. Raises DockerfileError where it is no text, never ends or has no FROM."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DockerfileError(f"{name} is not UTF-8 text: save it as UTF-8") from None
    lines = tuple(line.removesuffix("\r") for line in text.split("\n"))
    escape = _escape(lines)
    found = tuple(_instructions(name, lines, escape))
    if not any(instruction.name == "FROM" for instruction in found):
        raise DockerfileError(f"{name} has no FROM: begin it with the image to build upon, such as FROM python:3.11")
    return Dockerfile(name, lines, escape, found)


def _escape(lines: tuple[str, ...]) -> str:
    """The escape character, which only the first lines may set."""
    for line in lines:
        found = _DIRECTIVE.fullmatch(line.strip())
        if found is None:
            break
        if found[1].lower() == "escape":
            return "`" if found[2] == "`" else "\\"
    return "\\"


def _instructions(name: str, lines: tuple[str, ...], escape: str) -> Iterator[Instruction]:
    number = 0
    while number < len(lines):
        start = number
        text, number = _joined(lines, number, escape)
        if not text:
            continue
        word, rest, *_ = (*text.split(None, 1), "")
        body = number
        if word.upper() in _WITH_HEREDOCS:
            for dash, end in _heredocs(rest, escape):
                number = _after(name, lines, number, (dash, end, body))
        yield Instruction(start + 1, number + 1, body + 1, word.upper(), rest)


def _joined(lines: tuple[str, ...], number: int, escape: str) -> tuple[str, int]:
    """The instruction that begins at a line, and the number of the line after it; '' for a comment or nothing."""
    parts: list[str] = []
    while number < len(lines):
        line = lines[number].rstrip()
        number += 1
        if line and not line.lstrip().startswith("#"):
            parts.append(line.removesuffix(escape))
        if not parts or (line and not line.endswith(escape) and not line.lstrip().startswith("#")):
            break
    return "".join(parts).strip(), number


def _heredocs(text: str, escape: str) -> list[tuple[bool, str]]:
    """The here-documents that an instruction's line opens: whether tabs are cut, and the line that ends each."""
    found = (_HEREDOC.fullmatch(word) for word in words(text, escape))
    named = ((bool(m[1]), re.sub(r"[\"']", "", m[2])) for m in found if m)
    return [(dash, end) for dash, end in named if end]


def _after(name: str, lines: tuple[str, ...], number: int, wanted: tuple[bool, str, int]) -> int:
    """The number of the line after a here-document that begins at a line."""
    dash, end, opened = wanted
    for at in range(number, len(lines)):
        if (lines[at].lstrip("\t") if dash else lines[at]) == end:
            return at + 1
    raise DockerfileError(
        f"{name}:{opened}: the here-document {end} never ends: close it by a line that is {end} alone"
    )


def words(text: str, escape: str = "\\") -> list[str]:
    """The words of a line as a shell divides them, quotes and escapes left in."""
    return _WORDS[escape].findall(text)


def _word(escape: str) -> re.Pattern[str]:
    sign = re.escape(escape)
    return re.compile(rf"""(?:{sign}.?|"(?:[^"{sign}]|{sign}.)*"?|'[^']*'?|[^\s"'{sign}])+""", re.DOTALL)


_WORDS = {escape: _word(escape) for escape in "\\`"}


# --- the images it builds upon -------------------------------------------------------------------------------------


def bases(dockerfile: Dockerfile, architecture: str) -> tuple[Upon, ...]:
    """The images from outside, in order, each once: of FROM, of COPY --from, of RUN --mount=…,from=….

    `architecture` is this machine's, as images name it (`amd64`). Raises DockerfileError for a FROM whose image
    cannot be told.
    """
    return tuple(dict.fromkeys(upon for _, upon in _uses(dockerfile, architecture)))


def _uses(dockerfile: Dockerfile, architecture: str) -> Iterator[tuple[Instruction, Upon]]:
    """Each instruction that names an image from outside, with it."""
    arguments = _machine(architecture)
    stages: set[str] = set()
    count = 0
    for instruction in dockerfile.instructions:
        if instruction.name == "ARG" and not count:
            _declare(instruction, arguments, dockerfile.escape)
        elif instruction.name == "FROM":
            image, platform, stage = _from(dockerfile, instruction, arguments)
            if image.lower() not in stages | _NO_IMAGE:
                yield instruction, Upon(image, platform, instruction.line)
            stages |= {str(count), *([stage] if stage else [])}
            count += 1
        else:
            for image in _taken_from(instruction):
                if image.lower() not in stages | _NO_IMAGE and not image.isdigit():
                    yield instruction, Upon(image, None, instruction.line)


def _machine(architecture: str) -> dict[str, str | None]:
    """The arguments that every Dockerfile has."""
    found: dict[str, str | None] = {}
    for kind in ("TARGET", "BUILD"):
        found |= {f"{kind}OS": "linux", f"{kind}ARCH": architecture, f"{kind}PLATFORM": f"linux/{architecture}"}
        found[f"{kind}VARIANT"] = ""
    return found


def _declare(instruction: Instruction, arguments: dict[str, str | None], escape: str) -> None:
    for word in words(instruction.text, escape):
        name, has_default, default = word.partition("=")
        if has_default:
            arguments[name] = _filled(_unquoted(default), arguments)
        else:
            arguments.setdefault(name, None)


def _from(
    dockerfile: Dockerfile, instruction: Instruction, arguments: Mapping[str, str | None]
) -> tuple[str, str | None, str | None]:
    """Image, platform and stage name of a FROM."""
    place = dockerfile.place(instruction.line)
    operands = words(instruction.operands, dockerfile.escape)
    if len(operands) not in {1, 3} or (len(operands) == 3 and operands[1].upper() != "AS"):
        raise DockerfileError(
            f"{place}: FROM {instruction.text} makes no sense: write FROM IMAGE, or FROM IMAGE AS NAME"
        )
    image = _filled(_unquoted(operands[0]), arguments)
    if not image:
        raise DockerfileError(
            f"{place}: which image FROM {operands[0]} means is not known: "
            "give its ARG, before the first FROM, a default"
        )
    asked = instruction.flags.get("platform", [""])[-1]
    platform = _filled(asked, arguments)
    if asked and not platform:
        raise DockerfileError(f"{place}: which platform {asked} means is not known: give its ARG a default")
    return image, platform or None, operands[2].lower() if len(operands) == 3 else None


def _filled(text: str, arguments: Mapping[str, str | None]) -> str | None:
    """A text with its variables replaced; None where one of them has no value."""
    parts, end = list[str](), 0
    for found in _VARIABLE.finditer(text):
        value = arguments.get(found["plain"] or found["name"])
        operator, word = found["operator"] or "", found["word"] or ""
        is_set = value is not None and (value != "" or not operator.startswith(":"))
        if operator.endswith("+"):
            value = _filled(word, arguments) if is_set else ""
        elif not is_set and operator.endswith("-"):
            value = _filled(word, arguments)
        elif not is_set and operator.endswith("?"):
            value = None
        if value is None:
            return None
        parts += [text[end : found.start()], value]
        end = found.end()
    return "".join(parts) + text[end:]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _taken_from(instruction: Instruction) -> list[str]:
    """What an instruction takes files from: a stage's name or number, or an image."""
    if instruction.name in {"COPY", "ADD"}:
        return instruction.flags.get("from", [])
    if instruction.name == "RUN":
        return [options["from"] for options in mounts(instruction) if options.get("from")]
    return []


def mounts(instruction: Instruction) -> list[dict[str, str]]:
    """The options of each `--mount` of a RUN, names in lower case."""
    found = []
    for value in instruction.flags.get("mount", []):
        pairs = (option.partition("=") for option in value.split(","))
        found.append({name.strip().lower(): text.strip("\"'") for name, _, text in pairs})
    return found


def pinned(dockerfile: Dockerfile, architecture: str, images: Mapping[tuple[str, str | None], str]) -> str:
    """The text with each image from outside replaced by what `images` says for it; lines keep their numbers.

    `images` is by name and platform asked for.
    """
    lines = list(dockerfile.lines)
    for instruction, upon in _uses(dockerfile, architecture):
        image, first, last = images[upon.image, upon.platform], instruction.line - 1, instruction.body_line - 1
        if instruction.name == "FROM":
            lines[first:last] = [_from_line(dockerfile, instruction, image), *[""] * (last - first - 1)]
        else:
            where = re.compile(rf"(\bfrom=[\"']?){re.escape(upon.image)}(?=[\"',\s]|$)")
            lines[first:last] = [where.sub(lambda m: m[1] + image, line) for line in lines[first:last]]  # noqa: B023
    return "\n".join(lines)


def _from_line(dockerfile: Dockerfile, instruction: Instruction, image: str) -> str:
    operands = words(instruction.operands, dockerfile.escape)
    flags = instruction.text[: len(instruction.text) - len(instruction.operands)].split()
    return " ".join(["FROM", *flags, image, *operands[1:]])


# --- what it takes of its context ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """A path of the context that an instruction names, as written but for quotes."""

    path: str
    line: int
    name: str


def taken(dockerfile: Dockerfile) -> list[Taken] | None:
    """What the Dockerfile takes of its context; None where that cannot be told, and so is everything."""
    found: list[Taken] = []
    for instruction in dockerfile.instructions:
        paths = _context_paths(instruction, dockerfile.escape)
        if paths is None:
            return None
        found += [Taken(path, instruction.line, instruction.name) for path in paths]
    return found


def _context_paths(instruction: Instruction, escape: str) -> list[str] | None:
    if instruction.name == "RUN":
        bound = [options for options in mounts(instruction) if options.get("type", "bind") == "bind"]
        paths = [options.get("source", options.get("src", "")) for options in bound if not options.get("from")]
    elif instruction.name in {"COPY", "ADD"} and "from" not in instruction.flags:
        paths = _sources(instruction.operands, escape) or []
        if not paths:
            return None
    else:
        return []
    paths = [path for path in paths if not _is_elsewhere(path, instruction.name)]
    plain = all(not set(path) & set("$\\`\"'") for path in paths)
    return paths if plain else None


def _sources(operands: str, escape: str) -> list[str] | None:
    if operands.startswith("["):
        try:
            listed = json.loads(operands)
        except ValueError:
            return None
        return [str(word) for word in listed[:-1]]
    return [_unquoted(word) for word in words(operands, escape)[:-1]]


def _is_elsewhere(path: str, name: str) -> bool:
    """Whether a source is no path of the context: a here-document, or an address that ADD fetches."""
    return _HEREDOC.fullmatch(path) is not None or (
        name == "ADD" and re.match(r"(?:https?|git|ssh)://|git@", path) is not None
    )
