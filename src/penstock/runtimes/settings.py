"""The person's pip and uv settings as variables for uv, which reads its own settings and never pip's."""

import configparser
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from penstock.errors import UsageError

_PASSED_ON = frozenset(
    """HOME XDG_CACHE_HOME XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_DATA_HOME XDG_DATA_DIRS XDG_BIN_HOME LANG TZ NETRC
    HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy SSH_AUTH_SOCK
    SSL_CERT_FILE SSL_CERT_DIR SSL_CLIENT_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE""".split()  # noqa: SIM905 - names read best as a table
)
"""uv runs as the person: its cache, its Pythons and the person's credentials lie below HOME and the XDG folders."""

_CONTRADICTING = frozenset(
    """UV_FROZEN UV_LOCKED UV_NO_SYNC UV_WORKING_DIR UV_WORKING_DIRECTORY UV_PROJECT UV_PROJECT_ENVIRONMENT
    UV_SYSTEM_PYTHON UV_BREAK_SYSTEM_PACKAGES UV_PYTHON UV_VENV_CLEAR UV_VENV_SEED UV_REQUIRE_HASHES
    UV_NO_VERIFY_HASHES UV_COMPILE_BYTECODE""".split()  # noqa: SIM905 - names read best as a table
)
"""Settings of uv that speak of the person's own project or environment; ours are said on the command line."""

_DECIDING = frozenset(
    """UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_INDEX_STRATEGY UV_TORCH_BACKEND
    UV_PRERELEASE UV_RESOLUTION UV_EXCLUDE_NEWER UV_CONSTRAINT UV_OVERRIDE UV_BUILD_CONSTRAINT UV_NO_BINARY
    UV_NO_BINARY_PACKAGE UV_NO_BUILD UV_NO_BUILD_PACKAGE UV_NO_SOURCES UV_FORK_STRATEGY UV_CONFIG_FILE
    UV_NO_CONFIG""".split()  # noqa: SIM905 - names read best as a table
)
"""Settings that can change what a resolution gives; the others change only how quickly and by which road."""


@dataclass(frozen=True, slots=True)
class UvSettings:
    """What uv is run with: `variables` beside the usual ones, and `options` that no variable can say.

    `configuration` is the content of the person's `uv.toml` files, which uv reads by itself.
    """

    variables: Mapping[str, str]
    options: tuple[str, ...] = ()
    configuration: tuple[str, ...] = field(default=(), repr=False)

    @property
    def deciding(self) -> dict[str, Any]:
        """The part that can change what a resolution gives, without credentials, as a value to hash."""
        chosen = {k: _without_credentials(v) for k, v in self.variables.items() if k in _DECIDING}
        return {"variables": chosen, "options": list(self.options), "configuration": list(self.configuration)}

    @property
    def provides_torch(self) -> bool:
        """Whether the person says where torch comes from, by a backend, an index or a folder of their own."""
        if "UV_TORCH_BACKEND" in self.variables or any(map(_configures_torch, self.configuration)):
            return True
        if self.variables.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
            return True
        extra = f"{self.variables.get('UV_INDEX', '')} {self.variables.get('UV_EXTRA_INDEX_URL', '')}".split()
        links = [link for link in self.variables.get("UV_FIND_LINKS", "").split(",") if link]
        return any(map(_serves_torch, extra)) or any(map(_offers_torch, links))


def uv_settings(environment: Mapping[str, str], *, prefix: Path, system: Path = Path("/etc")) -> UvSettings:
    """Settings for uv from the person's environment and the configuration files that it leads to.

    `prefix` is the installation whose `pip.conf` counts, `system` the folder of system-wide configuration. A setting
    of uv always wins over the same of pip. Raises UsageError naming a pip configuration that cannot be read.
    """
    kept = {
        k: v
        for k, v in environment.items()
        if v and (k in _PASSED_ON or (k.startswith("UV_") and k not in _CONTRADICTING))
    }
    pip = pip_options(environment, prefix=prefix, system=system)
    variables = {**_translated(pip, kept), **kept, "GIT_TERMINAL_PROMPT": "0"}
    options = ("--no-index",) if pip.get("no-index", "").lower() in {"1", "true", "yes", "on", "y", "t"} else ()
    return UvSettings(variables, options, tuple(_uv_configuration(variables, system)))


def pip_options(environment: Mapping[str, str], *, prefix: Path, system: Path = Path("/etc")) -> dict[str, str]:
    """The options as pip itself would see them: system, person, installation, PIP_CONFIG_FILE, then variables.

    Within the files `[install]` wins over `[global]`. Raises UsageError naming a file that cannot be read.
    """
    general: dict[str, str] = {}
    install: dict[str, str] = {}
    for path in _pip_files(environment, prefix, system):
        parsed = _parse(path)
        general |= _section(parsed, "global")
        install |= _section(parsed, "install")
    return {**general, **install, **_pip_variables(environment)}


def _pip_files(environment: Mapping[str, str], prefix: Path, system: Path) -> list[Path]:
    named = environment.get("PIP_CONFIG_FILE")
    if named == "/dev/null":
        return []
    config_dirs = [p for p in environment.get("XDG_CONFIG_DIRS", "").split(":") if p]
    files = [Path(p) / "pip/pip.conf" for p in config_dirs] or [system / "xdg/pip/pip.conf"]
    files.append(system / "pip.conf")
    # A file named by variable replaces the person's own and is stronger than all others.
    if named and Path(named).exists():
        return [f for f in (*files, prefix / "pip.conf", Path(named)) if f.is_file()]
    if home := environment.get("HOME"):
        files.append(Path(home) / ".pip/pip.conf")
        files.append(Path(environment.get("XDG_CONFIG_HOME") or Path(home) / ".config") / "pip/pip.conf")
    return [f for f in (*files, prefix / "pip.conf") if f.is_file()]


def _parse(path: Path) -> configparser.RawConfigParser:
    parsed = configparser.RawConfigParser()
    try:
        parsed.read_string(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise UsageError(
            f"the pip configuration {path} cannot be read ({reason}): correct it, or set PIP_CONFIG_FILE=/dev/null"
        ) from error
    return parsed


def _section(parsed: configparser.RawConfigParser, name: str) -> dict[str, str]:
    return {_option(k): v for k, v in parsed.items(name)} if parsed.has_section(name) else {}


def _pip_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {_option(k[4:]): v for k, v in environment.items() if k.startswith("PIP_") and v and k != "PIP_CONFIG_FILE"}


def _option(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _translated(pip: Mapping[str, str], kept: Mapping[str, str]) -> dict[str, str]:
    return {
        **_indexes(pip, kept),
        **_find_links(pip, kept),
        **_certificates(pip, kept),
        **_connection(pip, kept),
    }


def _indexes(pip: Mapping[str, str], kept: Mapping[str, str]) -> dict[str, str]:
    found = {}
    if (index := pip.get("index-url", "").strip()) and not kept.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
        found["UV_DEFAULT_INDEX"] = index
    extra = pip.get("extra-index-url", "").split()
    if extra and not kept.keys() & {"UV_INDEX", "UV_EXTRA_INDEX_URL"}:
        # pip weighs all indexes as one; uv would stay with the first that knows a name, however few files it has.
        found |= {"UV_INDEX": " ".join(extra), "UV_INDEX_STRATEGY": "unsafe-best-match"}
    return found


def _find_links(pip: Mapping[str, str], kept: Mapping[str, str]) -> dict[str, str]:
    links = [] if "UV_FIND_LINKS" in kept else pip.get("find-links", "").split()
    # pip warns about a folder that is not there; uv ends.
    usable = [link for link in links if "://" in link or Path(link).expanduser().exists()]
    return {"UV_FIND_LINKS": ",".join(usable)} if usable else {}


def _certificates(pip: Mapping[str, str], kept: Mapping[str, str]) -> dict[str, str]:
    found = {}
    authority = pip.get("cert") or kept.get("REQUESTS_CA_BUNDLE") or kept.get("CURL_CA_BUNDLE")
    if authority and "SSL_CERT_FILE" not in kept:
        found["SSL_CERT_FILE"] = authority
    if client := pip.get("client-cert"):
        found["SSL_CLIENT_CERT"] = client
    return found


def _connection(pip: Mapping[str, str], kept: Mapping[str, str]) -> dict[str, str]:
    found = {}
    if hosts := pip.get("trusted-host", "").split():
        found["UV_INSECURE_HOST"] = " ".join(hosts)
    if seconds := _seconds(pip.get("timeout") or pip.get("default-timeout") or ""):
        found["UV_HTTP_TIMEOUT"] = seconds
    proxied = {"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"}
    if (proxy := pip.get("proxy")) and not kept.keys() & proxied:
        found["ALL_PROXY"] = proxy if "://" in proxy else f"http://{proxy}"
    return found


def _seconds(text: str) -> str | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return str(math.ceil(value)) if math.isfinite(value) and value > 0 else None


def _uv_configuration(variables: Mapping[str, str], system: Path) -> Iterable[str]:
    if named := variables.get("UV_CONFIG_FILE"):
        files = [Path(named)]
    elif variables.get("UV_NO_CONFIG"):
        files = []
    else:
        home = variables.get("XDG_CONFIG_HOME") or (f"{variables['HOME']}/.config" if "HOME" in variables else None)
        files = [Path(home) / "uv/uv.toml"] if home else []
        files.append(system / "uv/uv.toml")
    return [f.read_bytes().decode("utf-8", "replace") for f in files if f.is_file()]


def _configures_torch(text: str) -> bool:
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False  # uv itself says so, with the position
    spoken = ("index", "index-url", "extra-index-url", "find-links", "torch-backend")
    tables = [settings, settings.get("pip", {})]
    return any(key in table for table in tables if isinstance(table, dict) for key in spoken)


def _serves_torch(index: str) -> bool:
    folder = _local_folder(index)
    return (folder / "torch").exists() if folder else "torch" in index


def _offers_torch(link: str) -> bool:
    folder = _local_folder(link)
    if folder is None:
        return "torch" in link
    if folder.is_file():
        return "torch-" in folder.read_text("utf-8", "replace")
    return folder.is_dir() and any(folder.glob("torch-*.whl"))


def _local_folder(address: str) -> Path | None:
    if address.startswith("file://"):
        return Path(urlsplit(address).path)
    return None if "://" in address else Path(address).expanduser()


def _without_credentials(text: str) -> str:
    return " ".join(map(_bare, re.split(r"\s+", text)))


def _bare(word: str) -> str:
    if "://" not in word or "@" not in word:
        return word
    parts = urlsplit(word)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
