"""The environment of every process that Penstock places: what the step contract promises, and nothing else."""

from collections.abc import Iterable, Mapping
from pathlib import Path

PASSED_ON = frozenset(
    {
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "NODE_EXTRA_CA_CERTS",
        "PIP_CERT",
    }
)
"""Passed on from the person to every process: where programs are, language, time zone, proxies and CAs."""

OF_THE_MACHINE = frozenset({"PATH", *(name for name in PASSED_ON if name.endswith(("_FILE", "_DIR", "_BUNDLE")))}) | {
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
}
"""Those of them that name places of this machine, which mean nothing inside an image."""

SEED = "0"


def passed_on(person: Mapping[str, str], more: Iterable[str] = ()) -> dict[str, str]:
    """The part of a person's environment that a process gets; `more` are names that the file passes on."""
    names = PASSED_ON | set(more)
    found = {k: v for k, v in person.items() if k in names or k.startswith("LC_")}
    return {**found, **_without_proxy(found)}


def inside(variables: Mapping[str, str]) -> dict[str, str]:
    """What of a process's variables goes into an image: those that name places of the machine are the image's own."""
    return {name: value for name, value in variables.items() if name not in OF_THE_MACHINE}


def _without_proxy(found: Mapping[str, str]) -> dict[str, str]:
    """Requests to this machine (PENSTOCK_URL) never go through a person's proxy."""
    if not any(k.lower().endswith("_proxy") and k.lower() != "no_proxy" for k in found):
        return {}
    kept = found.get("NO_PROXY") or found.get("no_proxy")
    names = ",".join(filter(None, (kept, "127.0.0.1,localhost")))
    return {"NO_PROXY": names, "no_proxy": names}


def with_runtime(variables: dict[str, str], runtime: Mapping[str, str], folder: Path, path: Iterable[str]) -> None:
    """Put a runtime in front of PATH and the folder's importable code on PYTHONPATH, in place."""
    for name, value in runtime.items():
        if name == "PATH":
            variables["PATH"] = f"{value}:{variables['PATH']}" if variables.get("PATH") else value
        else:
            variables[name] = value
    folders = ":".join(str(folder / p) for p in path)
    if folders:
        variables["PYTHONPATH"] = folders
