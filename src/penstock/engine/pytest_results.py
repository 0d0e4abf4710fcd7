"""A plugin of pytest that writes each result as a line of JSON into the folder that PENSTOCK_TESTS names.

This file is copied beside a step and runs within the step's own Python, from 3.6 on, under pytest 6 or newer: it
imports nothing of Penstock, and whatever goes wrong in it ends its writing and nothing else.
"""

import json
import os
import re
import time
from typing import Any

VARIABLE = "PENSTOCK_TESTS"
LONGEST = 1000
"""Characters of why a test did not pass; of a step with secrets none are written."""

_ORDER = ("passed", "skipped", "failed", "errored")


def pytest_configure(config: Any) -> None:
    """Listen, where Penstock asked for it. Only the first pytest of a process tree does: its workers tell it all."""
    folder = os.environ.pop(VARIABLE, "")
    if folder and not hasattr(config, "workerinput"):
        try:
            listener = Listener(folder)
        except OSError:
            return
        config.pluginmanager.register(listener, "penstock-listener")


class Listener:
    """Writes the results of one session: a line per test as it ends, and a last line at the end of the session."""

    def __init__(self, folder: str) -> None:
        name = "%d.%d" % (time.time() * 1e6, os.getpid())  # noqa: UP031 - as old as the Pythons that it may meet
        self._file = open(os.path.join(folder, name), "w", 1, encoding="ascii")  # noqa: PTH118, PTH123, SIM115 - as above
        self._quiet = os.path.exists(os.path.join(folder, "quiet"))  # noqa: PTH110, PTH118 - as above
        self._open: dict[str, list[Any]] = {}
        self._red = 0
        self._pid = os.getpid()

    def pytest_collectreport(self, report: Any) -> None:
        if getattr(report, "failed", False):
            self._red += 1
            self._attempt(self._add_collection, report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if getattr(report, "failed", False) and not hasattr(report, "wasxfail"):
            self._red += 1
        self._attempt(self._add, report)

    def pytest_sessionfinish(self, session: Any, exitstatus: int) -> None:
        self._attempt(self._finish, session, exitstatus)

    def _attempt(self, part: Any, *arguments: Any) -> None:
        if self._file.closed or os.getpid() != self._pid:
            return
        try:
            part(*arguments)
        except Exception:  # noqa: BLE001 - a defect of ours is no business of the tests
            self._file.close()

    def _add_collection(self, report: Any) -> None:
        suite, name = _names(report.nodeid)
        self._write([suite, name, "errored", 0.0, self._why(report)])

    def _add(self, report: Any) -> None:
        """A test has up to three reports: the worst counts, with the time of all, when the last one is there."""
        nodeid, outcome, when = report.nodeid, report.outcome, report.when
        if outcome not in ("passed", "failed", "skipped"):  # it will be run again
            self._open.pop(nodeid, None)
            return
        status = "errored" if outcome == "failed" and when != "call" else outcome
        test = self._open.setdefault(nodeid, ["passed", 0.0, ""])
        test[1] += getattr(report, "duration", 0.0)
        if _ORDER.index(status) > _ORDER.index(test[0]):
            test[0], test[2] = status, self._why(report)
        if when not in ("setup", "call"):
            self._end(nodeid)

    def _end(self, nodeid: str) -> None:
        suite, name = _names(nodeid)
        self._write([suite, name] + self._open.pop(nodeid))  # noqa: RUF005 - as old as the Pythons that it may meet

    def _finish(self, session: Any, exitstatus: int) -> None:
        for nodeid in list(self._open):
            self._end(nodeid)
        stopped = bool(getattr(session, "shouldstop", False) or getattr(session, "shouldfail", False))
        more = getattr(session, "testsfailed", self._red) > self._red  # something failed that is no test
        self._write({"exit": int(exitstatus), "whole": not stopped and not more})
        self._file.close()

    def _write(self, line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")

    def _why(self, report: Any) -> str:
        found = getattr(report, "longrepr", None)
        if self._quiet or not found:
            return ""
        if isinstance(found, tuple):
            return str(found[-1])[:LONGEST]
        crash = getattr(found, "reprcrash", None)
        return str(getattr(crash, "message", None) or found)[:LONGEST]


def _names(nodeid: str) -> "tuple[str, str]":
    """Suite and name as pytest's own JUnit files have them: a history survives a change from one to the other."""
    address, bracket, parameters = nodeid.partition("[")
    names = address.split("::")
    names[0] = re.sub(r"\.py$", "", names[0].replace("/", "."))
    return ".".join(names[:-1]) or "pytest", names[-1] + bracket + parameters
