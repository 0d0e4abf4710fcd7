"""How soon a bad canary has no traffic: from the verdict on record to the last request that it was given.

    python benchmarks/rollbacks.py [--rounds 5] [--errors 0.3]

In each round a commit whose server fails a part of its requests goes to a canary of half the traffic, under load from
callers who never try twice, and is rolled back by what it does. The verdict's time is that of the look that showed the
harm, as the release keeps it; a request counts where it was sent after that and the canary answered it. Anything but an
answer of 200 or the server's own 500 is a lost request, and there must be none: then the exit code is 1.
"""

import argparse
import asyncio
import json
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from side_by_side import PENSTOCK, environment, repository, run, scratch

CALLERS = 8
PAUSE = 0.02
PORT = 18831

SERVE = """\
import http.server
import os
import random
from pathlib import Path

RATE = float(Path("model/rate.txt").read_text())


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        failed = self.path != "/health" and random.random() < RATE
        self.send_response(500 if failed else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""

PIPELINE = f"""\
name: rollbacks
steps:
  train: {{run: "mkdir model; cp rate.txt model/", inputs: [rate.txt], outputs: [model/]}}
package: {{model: model/, code: [serve.py], serve: python -S serve.py}}
environments:
  production: {{port: {PORT}, replicas: 2, rollout: {{canary: [50%], interval: 1s, deadline: 2m}}}}
"""


@dataclass
class Heard:
    """What callers heard: when a request was sent and which version answered it; and what was lost."""

    answers: list[tuple[float, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Load:
    """Callers until the end of the `with`; half of them keep their connection."""

    def __init__(self) -> None:
        self.heard = Heard()
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call_all()))

    def __enter__(self) -> Heard:
        self._thread.start()
        return self.heard

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    async def _call_all(self) -> None:
        await asyncio.gather(*(self._call(keep=number % 2 == 0) for number in range(CALLERS)))

    async def _call(self, *, keep: bool) -> None:
        streams = None
        while not self._over.is_set():
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", PORT)
                await self._ask(*streams)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.heard.lost.append(repr(error))
                streams = None
            if not keep and streams is not None:
                streams[1].close()
                streams = None
            await asyncio.sleep(PAUSE)
        if streams is not None:
            streams[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = time.time()
        writer.write(b"GET /predict HTTP/1.1\r\nHost: here\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.readexactly(2)
        status, *headers = head.split("\r\n")
        if status.split()[1] not in {"200", "500"}:
            self.heard.lost.append(status)
        version = next((h.partition(":")[2].strip() for h in headers if h.startswith("x-penstock-release:")), "")
        self.heard.answers.append((sent, version))


def released(home: Path) -> tuple[str, float, str]:
    """The newest release: its version, when its last move was decided, and which move that was."""
    with closing(sqlite3.connect(home / "penstock.db")) as database:
        version, rollout = database.execute("SELECT version, rollout FROM releases ORDER BY id DESC").fetchone()
    last = json.loads(rollout)["moves"][-1]
    return str(version), float(last["at"]), str(last["kind"])


def one_round(repo: Path, variables: dict[str, str], home: Path, errors: float, number: int) -> tuple[float, int]:
    """Seconds from the verdict to the last request that the canary was given, and how many requests were lost."""
    (repo / "rate.txt").write_text(f"{errors}{' ' * number}\n")
    run(("git", "commit", "-qam", f"round {number}"), repo, variables)
    with Load() as heard:
        done = subprocess.run([*PENSTOCK, "run"], cwd=repo, env=variables, capture_output=True, text=True, check=False)
        time.sleep(1)
    version, verdict, kind = released(home)
    if done.returncode != 1 or kind != "roll_back":
        sys.exit(f"it was not rolled back:\n{done.stdout}\n{done.stderr}")
    late = [sent - verdict for sent, answered in heard.answers if answered == version and sent > verdict]
    return max(late, default=0.0), len(heard.lost)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--errors", type=float, default=0.3, help="the share of its requests that the canary fails")
    asked = parser.parse_args()
    with scratch() as place:
        home = place / "home"
        variables = environment(home)
        repo = repository(place / "repository", {"penstock.yaml": PIPELINE, "serve.py": SERVE, "rate.txt": "0\n"})
        run((*PENSTOCK, "run"), repo, variables)
        try:
            found = [one_round(repo, variables, home, asked.errors, number) for number in range(1, asked.rounds + 1)]
        finally:
            run((*PENSTOCK, "stop"), repo, variables)
    seconds, lost = [late for late, _ in found], sum(lost for _, lost in found)
    middle, most = statistics.median(seconds), max(seconds)
    print(f"verdict to the canary's last request: {middle:.3f} s (median), {most:.3f} s at most")
    print(f"lost requests: {lost}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
