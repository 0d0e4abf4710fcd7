"""Path and branch patterns: what they name, and whether two of them may name the same path."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache


def matches(pattern: str, path: str) -> bool:
    """Whether a path pattern names a path, both relative to the repository.

    `src/` and `src` name the folder and all below it, `a.txt` the file, `.` everything; `*` and `?` stay within a
    folder, `**` as a whole part crosses folders, `[abc]` is one of the characters and `[!abc]` none of them.
    """
    if has_wildcard(pattern):
        return _compiled(pattern).match(path) is not None
    plain = "/".join(parts_of(pattern))
    if path == plain:
        return path != "" and not pattern.endswith("/")
    return path.startswith(f"{plain}/") and len(path) > len(plain) + 1 if plain else True


def any_of(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether any of the patterns names a path, as a function of the path: for many paths it costs a tenth."""
    exact: set[str] = set()
    folders: list[str] = []
    compiled = []
    for pattern in patterns:
        plain = "/".join(parts_of(pattern))
        if has_wildcard(pattern):
            compiled.append(_compiled(pattern).match)
        elif not plain:
            return lambda _path: True
        else:
            folders.append(f"{plain}/")
            exact.update(() if pattern.endswith("/") else (plain,))
    below, bare = tuple(folders), frozenset(folders)

    def named(path: str) -> bool:
        inside = path.startswith(below) and path not in bare
        return inside or path in exact or any(match(path) for match in compiled)

    return named


def overlaps(pattern: str, other: str) -> bool:
    """Whether two patterns may name the same path; it errs on the side of yes where both have wildcards."""
    for one, two in zip(parts_of(pattern), parts_of(other), strict=False):
        if "**" in {one, two}:
            return True
        if not _parts_meet(one, two):
            return False
    return True


def has_wildcard(pattern: str) -> bool:
    """Whether a pattern names more than one path and what lies below it."""
    return "*" in pattern or "?" in pattern or "[" in pattern


def parts_of(pattern: str) -> list[str]:
    """The names between the slashes of a pattern; none for `.`."""
    return [part for part in pattern.split("/") if part not in {"", "."}]


def _parts_meet(one: str, two: str) -> bool:
    if not has_wildcard(one):
        one, two = two, one
    if not has_wildcard(one):
        return one == two
    if not has_wildcard(two):
        return _names(one, two)
    (head, tail), (other_head, other_tail) = _ends(one), _ends(two)
    heads = head.startswith(other_head) or other_head.startswith(head)
    return heads and (tail.endswith(other_tail) or other_tail.endswith(tail))


def _names(part: str, name: str) -> bool:
    """Whether a part names a name; with one star, as most have, nothing need be compiled."""
    head, star, tail = part.partition("*")
    if star and not has_wildcard(head) and not has_wildcard(tail):
        return len(name) >= len(head) + len(tail) and name.startswith(head) and name.endswith(tail)
    return _compiled_part(part).fullmatch(name) is not None


def _ends(part: str) -> tuple[str, str]:
    return re.split(r"[*?\[]", part, maxsplit=1)[0], re.split(r"[*?\]]", part)[-1]


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    below = "/.+" if pattern.endswith("/") else "(?:/.+)?"
    text = _regex(parts_of(pattern))
    return re.compile(rf"{text}{below}\Z" if text else r".+\Z", re.DOTALL)


@lru_cache(maxsize=4096)
def _compiled_part(part: str) -> re.Pattern[str]:
    return re.compile(_part_regex(part), re.DOTALL)


def _regex(parts: list[str]) -> str:
    """Atomic groups keep it linear: between two `**` the earliest place that fits is as good as any later one."""
    chunks: list[list[str]] = [[]]
    for part in parts:
        if part == "**":
            chunks.append([])
        else:
            chunks[-1].append(_part_regex(part))
    first, *rest = ["/".join(chunk) for chunk in chunks]
    if not rest:
        return first
    start = f"{first}/" if first else ""
    middle = "".join(f"(?>(?:.+?/)??{text}/)" for text in rest[:-1] if text)
    return start + middle + (f"(?:.+/)?{rest[-1]}" if rest[-1] else ".+")


_SIGNS = re.compile(r"\*+|\?|\[!?[^\]/!][^\]/]*\]|.", re.DOTALL)


def _part_regex(part: str) -> str:
    """The regular expression of one part between slashes, linear for the same reason."""
    pieces: list[list[str]] = [[]]
    for sign in _SIGNS.findall(part):
        if sign.startswith("*"):
            pieces.append([])
        else:
            pieces[-1].append(_character(sign))
    first, *rest = ["".join(piece) for piece in pieces]
    if not rest:
        return first
    middle = "".join(f"(?>[^/]*?{text})" for text in rest[:-1] if text)
    return f"{first}{middle}[^/]*{rest[-1]}"


def _character(sign: str) -> str:
    if sign == "?":
        return "[^/]"
    if len(sign) == 1:
        return re.escape(sign)
    inside = sign[1:-1].removeprefix("!")
    ranges = [(m[1] or m[3], m[2] or m[3]) for m in re.finditer(r"(.)-(.)|(.)", inside, re.DOTALL)]
    text = "".join(f"\\U{ord(a):08x}-\\U{ord(b):08x}" for a, b in ranges if a <= b)
    return f"[^/{text}]" if sign.startswith("[!") else f"(?!/)[{text}]" if text else "(?!)"


def branch_matches(pattern: str, branch: str) -> bool:
    """Whether a pattern such as `main`, `release/*` or `**` names a branch; `*` does not cross a `/`, `**` does."""
    return re.fullmatch(_regex(pattern.split("/")), branch, re.DOTALL) is not None
