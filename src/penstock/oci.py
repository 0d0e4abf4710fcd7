"""A package as an OCI image: its configuration, manifest and index as bytes, and what the image is started with.

All of it follows from the package, its version and the base image alone. So the same three give the same bytes, and
the same digest, on every machine: nothing here is a time, a path or a name of the machine that made it.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from penstock.errors import UsageError
from penstock.packages import Manifest
from penstock.pipelines import interpolate

ENVIRONMENT = "/opt/penstock/env"
PACKAGE = "/opt/penstock/package"
HOME = "/opt/penstock/home"
USER = 10001
"""The user and group that an image's process has: no person's, and never root."""
PORT = 8000

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'

START = """\
trap 'trap "" TERM INT; kill -TERM 0' TERM INT
sh -e -c "trap 'exit \\$?' TERM
$1" &
while true; do
  wait $!
  code=$?
  kill -0 $! 2>/dev/null && continue
  wait $! 2>/dev/null
  again=$?
  [ $again = 127 ] || code=$again
  exit $code
done"""
"""How an image starts its server. A first process is not ended by a signal that it does not handle, and few servers
handle TERM. So the first process is this shell: it hands TERM on to all that it started, waits until the server has
answered what it had begun, and ends as that did."""

_STEPS = 200
"""More parts than any path has, unless its links go round."""
_USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_NAME = re.compile(
    r"(?:(?P<host>localhost|[a-zA-Z0-9.-]*[.:][a-zA-Z0-9.:-]*)/)?"
    r"(?P<path>[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes of an image: their SHA-256 as `sha256:HEX`, and how many they are."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: an uncompressed tar, so that its digest depends on no compressor. `what` says what it holds."""

    what: Literal["base", "dependencies", "code", "model"]
    blob: Blob


@dataclass(frozen=True, slots=True)
class Exported:
    """What an image is made of, as plain values.

    `package` and `environment` are digests; `python` is the minor version (`3.11`) that the dependencies are for, and
    None where the image has no layer of them; `base` is the reference of the image below; `serve` has its places
    filled in; `path` are the package's folders of importable code, `model` the patterns of its model. `variables` are
    the pipeline's own. `source` is an address that says where the code lives, for all to read, or None.
    """

    title: str
    version: str
    commit: str
    package: str
    base: str
    serve: str | None
    health: str
    python: str | None = None
    environment: str | None = None
    path: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None

    def encode(self) -> str:
        """One line of JSON."""
        return canonical(asdict(self)).decode()

    @classmethod
    def decode(cls, text: str) -> "Exported":
        """The inverse of `encode`."""
        values = json.loads(text)
        return cls(**{**values, "path": tuple(values["path"]), "model": tuple(values["model"])})


def exported_of(
    manifest: Manifest,
    package: str,
    *,
    version: str,
    commit: str,
    identity: str,
    base: str,
    python: str | None,
    variables: Mapping[str, str],
) -> Exported:
    """What the image of a package is made of.

    `identity` is the project's: the address of its repository without a scheme, or a folder, which nobody is told.
    """

    def filled(text: str) -> str:
        return interpolate(text, variables, version, commit)

    return Exported(
        title=manifest.name,
        version=version,
        commit=commit,
        package=package,
        base=base,
        serve=None if manifest.serve is None else filled(manifest.serve),
        health=manifest.health,
        python=python,
        environment=manifest.environment,
        path=manifest.path,
        model=manifest.model,
        variables={name: filled(value) for name, value in variables.items()},
        source=None if identity.startswith("/") else f"https://{identity}",
    )


def canonical(value: Any) -> bytes:
    """The one way to write a JSON value: keys sorted, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def blob_of(data: bytes) -> Blob:
    return Blob(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


# --- where to --------------------------------------------------------------------------------------------------


def is_file(target: str) -> bool:
    """Whether a target of an export is a file: it ends with `.tar`, or begins with `/`, `./`, `../` or `~`."""
    return target.endswith(".tar") or target.startswith(("/", "./", "../", "~"))


def tag_of(version: str) -> str:
    """A version as an image's tag, which knows no `+`."""
    return re.sub(r"[^\w.-]", "-", version, flags=re.ASCII)[:128]


def reference(name: str, version: str) -> str:
    """The whole reference of a name: `localhost/` before it where it has no registry, the version as its tag.

    Raises UsageError where the name is none that an image may have.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(
            f"{name!r} is neither a file nor the name of an image: write a path that ends with .tar, "
            "or a name in lower case such as team/digits:1.0"
        )
    return f"{found['host'] or 'localhost'}/{found['path']}:{found['tag'] or tag_of(version)}"


def name_of(title: str, version: str) -> str:
    """The reference that the image in a file is given by whoever loads it."""
    plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "package"
    return f"localhost/{plain}:{tag_of(version)}"


def base_of(python: str) -> str:
    """The image below, where nobody names another: a maintained one that holds this Python."""
    return f"docker.io/library/python:{python}-slim"


# --- what lies below -----------------------------------------------------------------------------------------------


def resolve(path: str, entries: Mapping[str, str | None]) -> str | None:
    """Where a path of an image leads; None where nothing is there.

    `entries` are all paths of the image (relative, no `/` at the end) with the targets of those that are links.
    """
    done, left = "", path.split("/")
    for _ in range(_STEPS):
        if not left:
            return done
        part, *left = left
        if part in {"", ".", ".."}:
            done = posixpath.dirname(done) if part == ".." else done
            continue
        here = posixpath.join(done, part)
        target = entries.get(here)
        if here not in entries:
            return None
        done = here if target is None else "" if target.startswith("/") else done
        left = left if target is None else [*target.split("/"), *left]
    return None


def find_program(name: str, config: Mapping[str, Any], entries: Mapping[str, str | None]) -> str | None:
    """The absolute path by which an image's PATH finds a program; None where it does not."""
    path = variables_of(config).get("PATH", _USUAL_PATH)
    candidates = (posixpath.join(folder, name) for folder in path.split(":") if folder.startswith("/"))
    return next((c for c in candidates if resolve(c, entries) is not None), None)


def apply_layer(entries: dict[str, str | None], names: Sequence[tuple[str, str | None]]) -> None:
    """Put a layer's paths and link targets over those below it, in place; its whiteouts take away."""
    for name, _ in names:
        folder, _, last = name.rpartition("/")
        if last == ".wh..wh..opq":
            _take_away(entries, folder, itself=False)
        elif last.startswith(".wh."):
            _take_away(entries, posixpath.join(folder, last[4:]), itself=True)
    for name, target in names:
        if not name.rpartition("/")[2].startswith(".wh."):
            entries[name] = target
            while (name := posixpath.dirname(name)) and name not in entries:
                entries[name] = None


def _take_away(entries: dict[str, str | None], path: str, *, itself: bool) -> None:
    for gone in [e for e in entries if e.startswith(f"{path}/") or (itself and e == path)]:
        del entries[gone]


def variables_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables of an image's configuration."""
    pairs = (entry.partition("=") for entry in (config.get("config") or {}).get("Env") or ())
    return {name: value for name, _, value in pairs}


# --- the image -----------------------------------------------------------------------------------------------------


def variables(exported: Exported, below: Mapping[str, str], *, dependencies: bool) -> dict[str, str]:
    """What the image's process finds in its environment, over what the base image sets (`below`)."""
    found = {
        **below,
        **exported.variables,
        "HOME": HOME,
        "USER": "penstock",
        "PENSTOCK_VERSION": exported.version,
        "PENSTOCK_COMMIT": exported.commit,
        "PENSTOCK_PACKAGE": PACKAGE,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if exported.serve is not None:
        found["PORT"] = str(PORT)
    if dependencies:
        path = found.get("PATH", _USUAL_PATH)
        found |= {"VIRTUAL_ENV": ENVIRONMENT, "PATH": f"{ENVIRONMENT}/bin:{path}"}
    if exported.path:
        found["PYTHONPATH"] = ":".join(posixpath.normpath(posixpath.join(PACKAGE, p)) for p in exported.path)
    return found


def labels(exported: Exported, below: Mapping[str, str], base_digest: str) -> dict[str, str]:
    """The image's labels: the common ones, Penstock's own for what it holds, and those of the base that stay true."""
    found = {
        **{name: value for name, value in below.items() if not name.startswith("org.opencontainers.image.")},
        "org.opencontainers.image.title": exported.title,
        "org.opencontainers.image.version": exported.version,
        "org.opencontainers.image.revision": exported.commit,
        "org.opencontainers.image.source": exported.source,
        "org.opencontainers.image.base.name": exported.base,
        "org.opencontainers.image.base.digest": base_digest,
        "penstock.package": exported.package,
        "penstock.environment": exported.environment,
        "penstock.health": exported.health if exported.serve is not None else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def configuration(exported: Exported, base: Mapping[str, Any], base_digest: str, layers: Sequence[Layer]) -> bytes:
    """The image's configuration: what it starts, as whom, where, and which layers it is.

    `base` is the configuration of the image below; `layers` are all, its own first.
    """
    below = base.get("config") or {}
    dependencies = any(layer.what == "dependencies" for layer in layers)
    found = variables(exported, variables_of(base), dependencies=dependencies)
    config: dict[str, Any] = {
        "User": f"{USER}:{USER}",
        "WorkingDir": PACKAGE,
        "StopSignal": "SIGTERM",
        "Env": [f"{name}={value}" for name, value in sorted(found.items())],
        "Labels": labels(exported, below.get("Labels") or {}, base_digest),
    }
    if exported.serve is not None:
        config["Cmd"] = ["sh", "-c", START, "serve", exported.serve]
        config["ExposedPorts"] = {f"{PORT}/tcp": {}}
    own = [layer for layer in layers if layer.what != "base"]
    value = {name: base[name] for name in ("architecture", "os", "variant", "os.version") if name in base}
    history = [*(base.get("history") or ()), *({"created_by": f"penstock export: {o.what}"} for o in own)]
    rootfs = {"type": "layers", "diff_ids": [layer.blob.digest for layer in layers]}
    return canonical({**value, "config": config, "history": history, "rootfs": rootfs})


def manifest(config: Blob, layers: Sequence[Layer]) -> bytes:
    """The image's manifest, whose SHA-256 is the image's digest."""
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(CONFIG_TYPE, config),
        "layers": [_descriptor(LAYER_TYPE, layer.blob) for layer in layers],
    }
    return canonical(value)


def index(image: Blob, name: str) -> bytes:
    """The `index.json` of a layout that holds this image under a name."""
    annotations = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
    found = {**_descriptor(MANIFEST_TYPE, image), "annotations": annotations}
    return canonical({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [found]})


def docker_manifest(config: Blob, layers: Sequence[Layer], name: str) -> bytes:
    """The `manifest.json` by which an older `docker load` understands the same layout."""
    paths = [blob_path(layer.blob) for layer in layers]
    return canonical([{"Config": blob_path(config), "RepoTags": [name], "Layers": paths}])


def blob_path(blob: Blob) -> str:
    """Where a layout keeps a blob."""
    return f"blobs/{blob.digest.replace(':', '/')}"


def _descriptor(kind: str, blob: Blob) -> dict[str, Any]:
    return {"mediaType": kind, "digest": blob.digest, "size": blob.size}
