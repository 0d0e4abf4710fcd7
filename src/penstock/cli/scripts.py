"""What a Python file says of itself, read by `ast` and never executed: imports, files, arguments, web applications.

It is a guess by design: names are bound wherever in the file they are assigned, and a path that cannot be followed
to its beginning is not told at all.
"""

import ast
import posixpath
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product

MAX_VALUES = 16
"""So many values of one name are followed."""

FRAMEWORKS: Mapping[str, str] = {
    "FastAPI": "asgi",
    "Starlette": "asgi",
    "Litestar": "asgi",
    "Quart": "asgi",
    "Flask": "flask",
}
"""The classes of web applications, and how each is served."""

_WRITING = frozenset(
    """dump save save_model save_weights save_pretrained save_file save_checkpoint save_to_disk savez savez_compressed
    savetxt export export_model to_csv to_parquet to_json to_feather to_pickle to_onnx write_csv write_parquet
    write_model mkdir makedirs urlretrieve write_text write_bytes""".split()  # noqa: SIM905 - names read best as a table
)
_FOLDERS = frozenset({"mkdir", "makedirs", "save_pretrained", "save_to_disk"})
_ON_PATH = frozenset({"write_text", "write_bytes", "mkdir", "read_text", "read_bytes"})
_READING = frozenset({"loadtxt", "genfromtxt", "imread", "from_pretrained", "from_file", "read_text", "read_bytes"})
_MODES = frozenset({"r", "rb", "rt", "w", "wb", "wt", "x", "xb", "a", "ab", "w+", "wb+", "w+b"})
_SAME_PATH = frozenset({"resolve", "absolute", "as_posix", "expanduser", "abspath", "realpath", "str", "fspath"})
_JOINING = frozenset({"Path", "PurePath", "PosixPath", "PurePosixPath", "join", "joinpath"})


@dataclass(frozen=True, slots=True)
class Application:
    """A web application of a module: its name, how it is served (`asgi` or `flask`), whether a function makes it."""

    name: str
    kind: str
    factory: bool


@dataclass(frozen=True, slots=True)
class Script:
    """One Python file. Paths are relative to the repository; a folder ends with `/`.

    `imports` are dotted names, `neighbours` the modules that relative imports name, as paths without ending. `written`
    and `read` are paths in calls that do so; `named` are all other texts that could be paths. `runs` says that it does
    something when executed. `arguments` are those of its command line that must be given. `words` are its short texts.
    """

    path: str
    imports: frozenset[str]
    neighbours: frozenset[str]
    written: frozenset[str]
    read: frozenset[str]
    named: frozenset[str]
    runs: bool
    arguments: tuple[str, ...]
    applications: tuple[Application, ...]
    routes: frozenset[str]
    words: frozenset[str]

    def says(self, word: str) -> bool:
        """Whether a text of the file is exactly this."""
        return word in self.words


def understand(path: str, data: bytes) -> Script | None:
    """What a file's bytes say, or None where they are no Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler thinks of the file is for `check` to tell
            tree = ast.parse(data)
        return _script(path, tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # The last two: the parser's own answers to expressions that are nested too deep.
        return None


def _script(path: str, tree: ast.Module) -> Script:
    paths = _Paths(path, tree)
    written, read = _touched(tree, paths)
    absolute, neighbours = _imports(path, tree)
    return Script(
        path=path,
        imports=frozenset(absolute),
        neighbours=frozenset(neighbours),
        written=written,
        read=read,
        named=frozenset(_plain(_named(tree, paths))) - written - read,
        runs=any(map(_does_something, tree.body)),
        arguments=tuple(_arguments(tree)),
        applications=tuple(_applications(tree, frozenset(n.partition(".")[0] for n in absolute))),
        routes=frozenset(_routes(tree)),
        words=frozenset(_words(tree)),
    )


# --- imports, and what it does -------------------------------------------------------------------------------------


def _imports(path: str, tree: ast.Module) -> tuple[set[str], set[str]]:
    absolute: set[str] = set()
    neighbours: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            absolute.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [".".join(filter(None, (node.module, alias.name))) for alias in node.names]
            if not node.level:
                absolute.update(names)
            else:
                folder = posixpath.join(path, *[".."] * node.level)
                stems = (posixpath.normpath(f"{folder}/{n.replace('.', '/')}") for n in (*names, node.module or "."))
                neighbours.update(s for s in stems if not s.startswith(".."))
    return absolute, neighbours


def _does_something(node: ast.stmt) -> bool:
    """A guard on `__name__`, or at the top of the file a call, loop or block."""
    if isinstance(node, ast.If):
        return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
    return isinstance(node, ast.For | ast.While | ast.With) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )


def _arguments(tree: ast.Module) -> Iterator[str]:
    """Arguments of argparse and click without which the command ends at once."""
    for call in _calls(tree):
        name, first = _name(call), _text(call.args[0]) if call.args else None
        if first is None or name not in {"add_argument", "argument", "option"}:
            continue
        keywords = {k.arg: k.value for k in call.keywords}
        required = keywords.get("required")
        if isinstance(required, ast.Constant):
            missing = required.value is True
        else:
            optional = _text(keywords.get("nargs")) in {"?", "*"} or "default" in keywords
            missing = not first.startswith("-") and name != "option" and not optional
        if missing:
            yield first


def _words(tree: ast.Module) -> Iterator[str]:
    return (text for text in map(_text, ast.walk(tree)) if text is not None and len(text) <= 40)


# --- web applications ----------------------------------------------------------------------------------------------


def _applications(tree: ast.Module, packages: frozenset[str]) -> Iterator[Application]:
    known = {name: kind for name, kind in FRAMEWORKS.items() if name.lower() in packages}
    for node in tree.body:
        for name, value in _assigned(node):
            if isinstance(value, ast.Call) and _name(value) in known:
                yield Application(name, known[_name(value)], factory=False)
        if isinstance(node, ast.FunctionDef) and "app" in node.name and not _wants_arguments(node.args):
            made = next((_name(c) for c in _calls(node) if _name(c) in known), None)
            if made is not None:
                yield Application(node.name, known[made], factory=True)


def _wants_arguments(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return positional > 0 or None in arguments.kw_defaults


def _routes(tree: ast.Module) -> Iterator[str]:
    """The paths that a GET request can ask an application itself for; those of nested routers have a prefix."""
    applications = {
        name for n in ast.walk(tree) for name, v in _assigned(n) if isinstance(v, ast.Call) and _name(v) in FRAMEWORKS
    }
    for call in _calls(tree):
        if not _is_route(call, applications):
            continue
        path = _text(call.args[0]) if call.args else None
        methods = next((k.value for k in call.keywords if k.arg == "methods"), None)
        texts = {_text(n) for n in ast.walk(methods)} if methods is not None else {"GET"}
        if path is not None and path.startswith("/") and "GET" in texts:
            yield path


def _is_route(call: ast.Call, applications: set[str]) -> bool:
    if isinstance(call.func, ast.Name):
        return call.func.id in {"Route", "get", "route"}
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    methods = {"get", "route", "api_route", "add_api_route", "add_route", "add_url_rule"}
    return isinstance(owner, ast.Name) and owner.id in applications and _name(call) in methods


# --- files ---------------------------------------------------------------------------------------------------------


def _touched(tree: ast.Module, paths: "_Paths") -> tuple[frozenset[str], frozenset[str]]:
    """The paths in calls that write, and in calls that read and in no other that writes."""
    written: set[str] = set()
    read: set[str] = set()
    for call in _calls(tree):
        name = _name(call)
        found = {p for node in _subjects(call, name) for p in paths.of(node)}
        if name in _WRITING or (name == "open" and _opens_to_write(call)):
            written.update(f"{p.rstrip('/')}/" if _is_folder(name, p) else p for p in found)
        elif name in _READING or name == "open" or name.startswith(("load", "read_")):
            read.update(found)
    kept = frozenset(_plain(written))
    return kept, frozenset(_plain(read)) - kept


def _is_folder(name: str, path: str) -> bool:
    return name in _FOLDERS and "." not in posixpath.basename(path.rstrip("/"))


def _subjects(call: ast.Call, name: str) -> Iterator[ast.expr]:
    """The expressions of a call that may be the path."""
    on_path = isinstance(call.func, ast.Attribute) and (name in _ON_PATH or name == "open")
    if isinstance(call.func, ast.Attribute) and on_path:
        yield call.func.value
    if name == "open":
        yield from (a for a in call.args[:1] if _text(a) not in _MODES)
    elif not on_path:
        yield from call.args
        yield from (k.value for k in call.keywords)


def _opens_to_write(call: ast.Call) -> bool:
    modes = (*call.args[:2], *(k.value for k in call.keywords if k.arg == "mode"))
    return any(_text(m) in _MODES - {"r", "rb", "rt"} for m in modes)


def _named(node: ast.AST, paths: "_Paths") -> Iterator[str]:
    """All texts that could be paths; a text joined to something unknown is not the whole path and is left out."""
    waiting: list[ast.AST] = [node]
    while waiting:
        node = waiting.pop()
        is_joined = isinstance(node, ast.JoinedStr | ast.BinOp) or (
            isinstance(node, ast.Call) and _name(node) in _JOINING
        )
        if is_joined or isinstance(node, ast.Constant):
            yield from (p for p in paths.of(node) if not any(c.isspace() for c in p))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        is_help = isinstance(node, ast.keyword) and node.arg in {"help", "description", "metavar"}
        if not is_joined and not is_help:
            waiting.extend(ast.iter_child_nodes(node))


def _plain(paths: Iterable[str]) -> Iterator[str]:
    """Paths in plain form; what leads out of the repository, and what is no path, is left out."""
    for path in paths:
        plain = posixpath.normpath(path) if path else "."
        if plain not in {".", ".."} and not plain.startswith(("/", "../", "~")) and "://" not in path:
            yield f"{plain}/" if path.endswith("/") else plain


class _Paths:
    """The values that expressions of one file may have, as far as they are texts written in it."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self._names: dict[str, frozenset[str]] = {}
        for _ in range(2):  # a name may be made of one that is bound below it
            self._names = {"__file__": frozenset([path])} | self._bound(tree)

    def _bound(self, tree: ast.Module) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for node in ast.walk(tree):
            for name, value in _bindings(node):
                found[name] = _few(found.get(name, frozenset()) | self.of(value))
        return found

    def of(self, node: ast.AST | None) -> frozenset[str]:  # noqa: PLR0911 - a table of syntax and what it means
        """All values that an expression may have; none where they are not known."""
        match node:
            case ast.Constant(value=str(text)):
                return frozenset([text] if 0 < len(text) <= 300 and text.isprintable() else [])
            case ast.Name(id=name):
                return self._names.get(name, frozenset())
            case ast.Attribute(value=value, attr="parent"):
                return frozenset(map(_folder, self.of(value)))
            case ast.Attribute(attr=name):
                return self._names.get(f".{name}", frozenset())
            case ast.Subscript(value=ast.Attribute(value=value, attr="parents"), slice=ast.Constant(value=int(up))):
                return frozenset(_folder(p, up + 1) for p in self.of(value))
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return self._joined([left, right], posixpath.join)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined([left, right], lambda *parts: "".join(parts))
            case ast.IfExp(body=body, orelse=other):
                return _few(self.of(body) | self.of(other))
            case ast.BoolOp(values=values):
                return _few(frozenset().union(*map(self.of, values)))
            case ast.JoinedStr(values=parts):
                return self._formatted(parts)
            case ast.Call():
                return self._called(node)
        return frozenset()

    def _joined(self, parts: list[ast.expr], join: Callable[..., str]) -> frozenset[str]:
        return _few(join(*chosen) for chosen in islice(product(*map(self.of, parts)), MAX_VALUES))

    def _formatted(self, parts: list[ast.expr]) -> frozenset[str]:
        """The whole text, or the folder that is known where the rest is not."""
        known = [self.of(p.value if isinstance(p, ast.FormattedValue) else p) for p in parts]
        if all(known):
            return _few("".join(chosen) for chosen in islice(product(*known), MAX_VALUES))
        begun = known[: next(n for n, values in enumerate(known) if not values)]
        starts = ("".join(chosen).rpartition("/") for chosen in islice(product(*begun), MAX_VALUES))
        return frozenset(f"{folder}/" for folder, slash, _ in starts if slash)

    def _called(self, call: ast.Call) -> frozenset[str]:
        name = _name(call)
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        if name in _JOINING and call.args:
            start = [owner] if owner is not None and name == "joinpath" else []
            return self._joined([*start, *call.args], posixpath.join)
        if name in _SAME_PATH:
            return self.of(call.args[0] if call.args else owner)
        if name == "dirname" and call.args:
            return frozenset(map(_folder, self.of(call.args[0])))
        if name in {"get", "getenv"} and len(call.args) == 2:
            return self.of(call.args[1])
        return frozenset()


def _few(values: Iterable[str]) -> frozenset[str]:
    return frozenset(islice(sorted(v for v in values if len(v) <= 300), MAX_VALUES))


def _folder(path: str, up: int = 1) -> str:
    for _ in range(min(up, 20)):
        path = posixpath.dirname(path.rstrip("/"))
    return path or "."


# --- names and values of the syntax --------------------------------------------------------------------------------


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _name(call: ast.Call) -> str:
    """The last part of what is called."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The names that an assignment binds, each with its value."""
    if isinstance(node, ast.Assign):
        yield from ((t.id, node.value) for t in node.targets if isinstance(t, ast.Name))
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name) and node.value:
        yield node.target.id, node.value


def _bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The names that a node may bind to a text: assignments, loops over a list, defaults of functions and commands."""
    yield from _assigned(node)
    if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple | ast.List):
        for item in node.iter.elts:
            yield from _unpacked(node.target, item)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        positional = (*node.args.posonlyargs, *node.args.args)
        yield from zip((a.arg for a in reversed(positional)), reversed(node.args.defaults), strict=False)
        pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        yield from ((a.arg, value) for a, value in pairs if value is not None)
    elif isinstance(node, ast.Call) and _name(node) in {"add_argument", "option"}:
        flags = [text for text in map(_text, node.args) if text is not None]
        default = next((k.value for k in node.keywords if k.arg == "default"), None)
        if flags and default is not None:
            name = max(flags, key=len).lstrip("-").replace("-", "_")
            yield f".{name}", default  # argparse: an attribute of what was parsed
            yield name, default  # click: an argument of the function


def _unpacked(target: ast.expr, item: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, item
    elif isinstance(target, ast.Tuple | ast.List) and isinstance(item, ast.Tuple | ast.List):
        for inner, value in zip(target.elts, item.elts, strict=False):
            yield from _unpacked(inner, value)
