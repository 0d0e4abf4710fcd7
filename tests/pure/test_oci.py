"""Images as values: names, what lies below, what is started, and bytes that depend on nothing else."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import oci
from penstock.errors import UsageError
from penstock.oci import Blob, Exported, Layer
from penstock.packages import Manifest

MANIFEST = Manifest(
    name="Digits",
    serve="python -m serve --level ${{ variables.LEVEL }}",
    health="/health",
    start_timeout=20,
    python="3.11.4",
    lock="1" * 64,
    environment="e" * 64,
    path=("src", "."),
    model=("model/",),
)
BASE = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2026-01-01T00:00:00Z",
    "config": {
        "Env": ["PATH=/usr/local/bin:/bin", "GPG_KEY=1=2", "LEVEL=0"],
        "Entrypoint": ["/entry"],
        "Cmd": ["python3"],
        "User": "root",
        "Labels": {"org.opencontainers.image.source": "https://elsewhere", "vendor": "somebody"},
    },
    "history": [{"created_by": "somebody"}],
}
LAYERS = [
    Layer("base", Blob("sha256:0", 1)),
    Layer("dependencies", Blob("sha256:1", 10)),
    Layer("code", Blob("sha256:2", 100)),
    Layer("model", Blob("sha256:3", 1000)),
]


def exported(**changes: Any) -> Exported:
    made = oci.exported_of(
        MANIFEST,
        "a" * 64,
        version="1.0.dev1+gabc",
        commit="abc",
        identity="example.org/team/digits",
        base="python:3.11-slim",
        python="3.11",
        variables={"LEVEL": "7", "SEEN": "v${{ version }}"},
    )
    return replace(made, **changes)


def configured(made: Exported, base: dict[str, Any] = BASE, layers: list[Layer] = LAYERS) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(oci.configuration(made, base, "sha256:b", layers))
    return value


def test_what_a_package_is_exported_with() -> None:
    """Places are filled in; the source is the repository's address; it survives its encoding."""
    made = exported()
    assert made.serve == "python -m serve --level 7"
    assert made.variables == {"LEVEL": "7", "SEEN": "v1.0.dev1+gabc"}
    assert (made.title, made.source, made.environment) == ("Digits", "https://example.org/team/digits", "e" * 64)
    assert Exported.decode(made.encode()) == made


def test_a_folder_is_nobodys_source() -> None:
    """A project without an origin tells nobody where its folder lies, and one without a server has no command."""
    made = oci.exported_of(
        replace(MANIFEST, serve=None),
        "a",
        version="1",
        commit="c",
        identity="/home/ada/digits",
        base="b",
        python=None,
        variables={},
    )
    assert (made.source, made.serve) == (None, None)


@pytest.mark.parametrize("target", ["a.tar", "team/a.tar", "/srv/a", "./a", "../a", "~/a"])
def test_files(target: str) -> None:
    """What ends with .tar or begins as a path does is a file."""
    assert oci.is_file(target)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("digits", "localhost/digits:1.0-gabc"),
        ("team/digits:stable", "localhost/team/digits:stable"),
        ("localhost/digits", "localhost/digits:1.0-gabc"),
        ("registry:5000/digits", "registry:5000/digits:1.0-gabc"),
        ("example.org/a/b-c__d:x", "example.org/a/b-c__d:x"),
    ],
)
def test_names(name: str, whole: str) -> None:
    """A name gets a registry where it has none, and the version as its tag."""
    assert not oci.is_file(name)
    assert oci.reference(name, "1.0+gabc") == whole


@pytest.mark.parametrize("name", ["", "Digits", "a b", "a:", ":1", "a//b", "a@sha256:1", "-a", "a/b:c/d"])
def test_what_is_no_name(name: str) -> None:
    """A name that no image may have is refused in one sentence that says how one looks."""
    with pytest.raises(UsageError, match=r"neither a file nor the name of an image: write a path that ends with \.tar"):
        oci.reference(name, "1")


@given(st.text(max_size=150), st.text(max_size=150))
def test_the_name_in_a_file_is_always_one(title: str, version: str) -> None:
    """Whatever a project is called and a version is, the image in a file has a name that may be loaded."""
    name = oci.name_of(title, f"1{version}")
    assert oci.reference(name.removeprefix("localhost/"), "1") == name


def test_the_default_base() -> None:
    """The maintained image of the package's Python."""
    assert oci.base_of("3.12") == "docker.io/library/python:3.12-slim"


# --- what lies below -----------------------------------------------------------------------------------------------

ENTRIES = {
    "bin": "usr/bin",
    "usr": None,
    "usr/bin": None,
    "usr/bin/dash": None,
    "usr/bin/sh": "dash",
    "usr/bin/python3.11": "/opt/../opt/./python/bin/python3.11",
    "opt": None,
    "opt/python": None,
    "opt/python/bin": None,
    "opt/python/bin/python3.11": None,
    "usr/bin/round": "round",
    "usr/bin/lost": "nothing",
}


def test_links_are_followed() -> None:
    """Folders and files that are links lead where they lead in the image; circles and gaps lead nowhere."""
    assert oci.resolve("/bin/sh", ENTRIES) == "usr/bin/dash"
    assert oci.resolve("bin/python3.11", ENTRIES) == "opt/python/bin/python3.11"
    assert oci.resolve("/bin/round", ENTRIES) is None
    assert oci.resolve("/bin/lost", ENTRIES) is None


def test_programs_are_found_on_the_path_of_the_image() -> None:
    """The first folder of its PATH that has it, else of the usual one."""
    assert oci.find_program("sh", {"config": {"Env": ["PATH=:lost:/bin:/usr/bin"]}}, ENTRIES) == "/bin/sh"
    assert oci.find_program("sh", {"config": None}, ENTRIES) == "/usr/bin/sh"
    assert oci.find_program("python3.12", {}, ENTRIES) is None


def test_layers_lie_over_each_other() -> None:
    """A whiteout takes a path away, an opaque one all that was below; folders that no layer lists are there."""
    entries: dict[str, str | None] = {}
    oci.apply_layer(entries, [("a/b/one", None), ("a/b/two", "one"), ("c/d", None), ("ca", None)])
    assert entries == {"a": None, "a/b": None, "a/b/one": None, "a/b/two": "one", "c": None, "c/d": None, "ca": None}
    oci.apply_layer(entries, [("a/b/.wh..wh..opq", None), ("a/b/three", None), (".wh.c", None)])
    assert entries == {"a": None, "a/b": None, "a/b/three": None, "ca": None}


# --- the image -----------------------------------------------------------------------------------------------------


def test_the_process_of_an_image() -> None:
    """It is no root, in the package's folder, with the serve command, the base's variables and the package's."""
    config = configured(exported())["config"]
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("10001:10001", oci.PACKAGE, "SIGTERM")
    assert config["Cmd"] == ["sh", "-c", oci.START, "serve", "python -m serve --level 7"]
    assert config["ExposedPorts"] == {"8000/tcp": {}}
    assert "Entrypoint" not in config
    assert dict(entry.split("=", 1) for entry in config["Env"]) == {
        "GPG_KEY": "1=2",
        "HOME": oci.HOME,
        "LEVEL": "7",
        "PATH": "/opt/penstock/env/bin:/usr/local/bin:/bin",
        "PENSTOCK_COMMIT": "abc",
        "PENSTOCK_PACKAGE": oci.PACKAGE,
        "PENSTOCK_VERSION": "1.0.dev1+gabc",
        "PORT": "8000",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/opt/penstock/package/src:/opt/penstock/package",
        "PYTHONUNBUFFERED": "1",
        "SEEN": "v1.0.dev1+gabc",
        "USER": "penstock",
        "VIRTUAL_ENV": "/opt/penstock/env",
    }


def test_labels_say_what_it_holds() -> None:
    """Version, commit and digests; the base's labels stay but for those that spoke of the base."""
    assert configured(exported())["config"]["Labels"] == {
        "org.opencontainers.image.title": "Digits",
        "org.opencontainers.image.version": "1.0.dev1+gabc",
        "org.opencontainers.image.revision": "abc",
        "org.opencontainers.image.source": "https://example.org/team/digits",
        "org.opencontainers.image.base.name": "python:3.11-slim",
        "org.opencontainers.image.base.digest": "sha256:b",
        "penstock.package": "a" * 64,
        "penstock.environment": "e" * 64,
        "penstock.health": "/health",
        "vendor": "somebody",
    }


def test_without_server_dependencies_or_code_on_the_path() -> None:
    """What does not exist is not spoken of: no command, no port, no environment, no health."""
    bare = exported(serve=None, python=None, environment=None, path=(), source=None, variables={})
    config = configured(bare, {"architecture": "arm64", "os": "linux", "variant": "v8"}, LAYERS[2:3])
    variables = {entry.partition("=")[0] for entry in config["config"]["Env"]}
    assert variables & {"PORT", "PATH", "VIRTUAL_ENV", "PYTHONPATH"} == set()
    assert config["config"].keys() & {"Cmd", "ExposedPorts"} == set()
    assert set(config["config"]["Labels"]) & {"penstock.health", "penstock.environment"} == set()
    assert (config["architecture"], config["variant"]) == ("arm64", "v8")
    assert config["history"] == [{"created_by": "penstock export: code"}]


def test_an_image_has_no_date() -> None:
    """Layers are named in order, and nothing tells when it was made."""
    config = configured(exported())
    assert "created" not in config
    assert config["rootfs"]["diff_ids"] == [layer.blob.digest for layer in LAYERS]
    assert [entry["created_by"] for entry in config["history"]][1:] == [
        "penstock export: dependencies",
        "penstock export: code",
        "penstock export: model",
    ]


def test_manifest_and_index_name_their_parts() -> None:
    """Digests and sizes of configuration and layers; the index and docker's list name the image."""
    config = oci.blob_of(b"{}")
    data = oci.manifest(config, LAYERS)
    told = json.loads(data)
    assert told["config"]["digest"] == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert [(layer["digest"], layer["size"]) for layer in told["layers"]] == [
        (layer.blob.digest, layer.blob.size) for layer in LAYERS
    ]
    (entry,) = json.loads(oci.index(oci.blob_of(data), "localhost/a:1"))["manifests"]
    assert (entry["digest"], entry["size"]) == (oci.blob_of(data).digest, len(data))
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "localhost/a:1"
    (docker,) = json.loads(oci.docker_manifest(config, LAYERS, "localhost/a:1"))
    assert (docker["RepoTags"], docker["Layers"][3]) == (["localhost/a:1"], "blobs/sha256/3")


def test_the_same_values_give_the_same_bytes() -> None:
    """The order in which variables and labels were written changes nothing."""
    turned = exported(variables=dict(reversed(list(exported().variables.items()))))
    base = {**dict(reversed(BASE.items())), "created": "2027-01-01T00:00:00Z"}
    assert oci.configuration(turned, base, "sha256:b", LAYERS) == oci.configuration(
        exported(), BASE, "sha256:b", LAYERS
    )
