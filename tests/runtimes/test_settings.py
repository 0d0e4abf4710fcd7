"""pip's settings as uv's."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.runtimes.settings import UvSettings, pip_options, uv_settings


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def translate(root: Path, environment: dict[str, str]) -> UvSettings:
    return uv_settings({"HOME": str(root / "me"), **environment}, prefix=root / "prefix", system=root / "etc")


def test_every_setting_is_translated(tmp_path: Path) -> None:
    """Each setting of pip that uv has a word for reaches uv under that word."""
    (tmp_path / "links").mkdir()
    found = translate(
        tmp_path,
        {
            "PIP_INDEX_URL": "https://own.example/simple",
            "PIP_EXTRA_INDEX_URL": "https://a.example/simple file:///b/simple",
            "PIP_FIND_LINKS": f"{tmp_path}/links https://c.example/links.html",
            "PIP_CERT": "/ca.pem",
            "PIP_CLIENT_CERT": "/me.pem",
            "PIP_TRUSTED_HOST": "a.example b.example:8443",
            "PIP_DEFAULT_TIMEOUT": "12.5",
            "PIP_PROXY": "proxy.example:3128",
            "PIP_NO_INDEX": "true",
        },
    )
    assert found.options == ("--no-index",)
    assert {k: v for k, v in found.variables.items() if k not in {"HOME", "GIT_TERMINAL_PROMPT"}} == {
        "UV_DEFAULT_INDEX": "https://own.example/simple",
        "UV_INDEX": "https://a.example/simple file:///b/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": f"{tmp_path}/links,https://c.example/links.html",
        "SSL_CERT_FILE": "/ca.pem",
        "SSL_CLIENT_CERT": "/me.pem",
        "UV_INSECURE_HOST": "a.example b.example:8443",
        "UV_HTTP_TIMEOUT": "13",
        "ALL_PROXY": "http://proxy.example:3128",
    }


def test_files_are_read_in_pips_order(tmp_path: Path) -> None:
    """Installation over person over system, `[install]` over `[global]`, a variable over all files."""
    prefix, system = tmp_path / "prefix", tmp_path / "etc"
    write(system / "xdg/pip/pip.conf", "[global]\ntimeout = 1\nproxy = one\ncert = a\n")
    write(system / "pip.conf", "[global]\ntimeout = 2\n[install]\nindex_url = https://system.example\n")
    write(tmp_path / "me/.pip/pip.conf", "[global]\ntimeout = 3\nindex-url = https://loses.example\n")
    write(tmp_path / "me/.config/pip/pip.conf", "[global]\nfind-links =\n    /a\n    /b\ncert = b\n")
    write(prefix / "pip.conf", "[global]\nproxy = two\n")
    environment = {"HOME": str(tmp_path / "me"), "PIP_CERT": "c"}
    found = pip_options(environment, prefix=prefix, system=system)
    assert found["timeout"] == "3"
    assert found["proxy"] == "two"
    assert found["cert"] == "c"
    assert found["index-url"] == "https://system.example"
    assert found["find-links"].split() == ["/a", "/b"]


def test_a_named_file_replaces_the_persons_own(tmp_path: Path) -> None:
    """PIP_CONFIG_FILE is stronger than the system's file and takes the place of the person's; /dev/null means none."""
    write(tmp_path / "etc/pip.conf", "[global]\ntimeout = 1\nproxy = kept\n")
    write(tmp_path / "me/.pip/pip.conf", "[global]\ntimeout = 2\ncert = lost\n")
    named = write(tmp_path / "named.conf", "[global]\ntimeout = 3\n")
    environment = {"HOME": str(tmp_path / "me"), "PIP_CONFIG_FILE": str(named)}
    places = {"prefix": tmp_path / "prefix", "system": tmp_path / "etc"}
    assert pip_options(environment, **places) == {"timeout": "3", "proxy": "kept"}
    assert pip_options({**environment, "PIP_CONFIG_FILE": "/dev/null"}, **places) == {}


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """A configuration that pip could not read either is one sentence that names the file."""
    path = write(tmp_path / "etc/pip.conf", "index-url = no section\n")
    with pytest.raises(UsageError, match=r"^the pip configuration \S+/etc/pip.conf cannot be read .*: correct it, or"):
        translate(tmp_path, {})
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="cannot be read"):
        translate(tmp_path, {})


UV_OF_PIP = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "https://pip.example/simple"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "https://pip.example/extra"),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS", "https://pip.example/links"),
    "PIP_CERT": ("SSL_CERT_FILE", "/pip.pem"),
    "PIP_TRUSTED_HOST": ("UV_INSECURE_HOST", "pip.example"),
    "PIP_TIMEOUT": ("UV_HTTP_TIMEOUT", "7"),
}


@given(st.sets(st.sampled_from(sorted(UV_OF_PIP))), st.sets(st.sampled_from(sorted(UV_OF_PIP))))
def test_a_setting_of_uv_wins(pip: set[str], uv: set[str]) -> None:
    """Whatever the person set for uv reaches it unchanged; only the rest is taken from pip."""
    environment = {name: UV_OF_PIP[name][1] for name in pip} | {UV_OF_PIP[name][0]: "9" for name in uv}
    found = uv_settings(environment, prefix=Path("/nonexistent"), system=Path("/nonexistent")).variables
    for name, (variable, value) in UV_OF_PIP.items():
        assert found.get(variable) == ("9" if name in uv else value if name in pip else None)


def test_what_uv_would_stumble_over_is_left_out(tmp_path: Path) -> None:
    """A missing folder of links, an empty variable, a senseless timeout, and settings of the person's own project."""
    environment = {"PIP_FIND_LINKS": "/nonexistent/links", "PIP_TIMEOUT": "soon", "UV_TORCH_BACKEND": ""}
    found = translate(tmp_path, {**environment, "UV_FROZEN": "1", "UV_PROJECT": "/mine", "SECRET": "x"}).variables
    assert set(found) == {"HOME", "GIT_TERMINAL_PROMPT"}


def test_proxies_and_authorities_are_passed_on(tmp_path: Path) -> None:
    """Proxy and CA variables reach uv, and an authority that only requests knows reaches it under uv's name."""
    found = translate(tmp_path, {"https_proxy": "http://p", "REQUESTS_CA_BUNDLE": "/ca", "PIP_PROXY": "http://q"})
    assert found.variables["https_proxy"] == "http://p"
    assert "ALL_PROXY" not in found.variables
    assert found.variables["SSL_CERT_FILE"] == "/ca"


def test_credentials_do_not_decide(tmp_path: Path) -> None:
    """A new password is no reason to resolve again; another index is."""
    one = translate(tmp_path, {"PIP_INDEX_URL": "https://me:one@own.example/simple"})
    two = translate(tmp_path, {"PIP_INDEX_URL": "https://me:two@own.example/simple"})
    other = translate(tmp_path, {"PIP_INDEX_URL": "https://other.example/simple"})
    assert one.deciding == two.deciding != other.deciding
    assert "one" not in str(one.deciding)


def test_who_provides_torch(tmp_path: Path) -> None:
    """An own index, a backend, a folder or index with torch, and uv's own file say where torch comes from."""
    write(tmp_path / "links/torch-2.0-py3-none-any.whl", "")
    write(tmp_path / "simple/torch/index.html", "")
    listing = write(tmp_path / "links.html", "<a href='torch-2.0-py3-none-any.whl'>")
    providing = [
        {"PIP_INDEX_URL": "https://own.example/simple"},
        {"UV_DEFAULT_INDEX": "own=https://own.example/simple"},
        {"UV_TORCH_BACKEND": "cpu"},
        {"PIP_FIND_LINKS": str(tmp_path / "links")},
        {"PIP_FIND_LINKS": listing.as_uri()},
        {"PIP_FIND_LINKS": "https://example.org/whl/torch_stable.html"},
        {"PIP_EXTRA_INDEX_URL": (tmp_path / "simple").as_uri()},
        {"UV_INDEX": "https://example.org/pytorch/cpu"},
    ]
    silent = [
        {},
        {"PIP_FIND_LINKS": str(tmp_path)},
        {"PIP_EXTRA_INDEX_URL": "https://example.org/simple"},
    ]
    assert [translate(tmp_path, e).provides_torch for e in providing] == [True] * len(providing)
    assert [translate(tmp_path, e).provides_torch for e in silent] == [False] * len(silent)
    write(tmp_path / "me/.config/uv/uv.toml", '[pip]\ntorch-backend = "cu130"\n')
    assert translate(tmp_path, {}).provides_torch
    assert not translate(tmp_path, {"UV_NO_CONFIG": "1"}).provides_torch
    write(tmp_path / "other.toml", "not = = toml")
    assert not translate(tmp_path, {"UV_CONFIG_FILE": str(tmp_path / "other.toml")}).provides_torch
