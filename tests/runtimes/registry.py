"""A registry on 127.0.0.1 from which a real engine pulls, and what a test needs to be its person."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Registry:
    """Images by repository, each the folder of an OCI layout. `asked` are the paths that were asked for."""

    images: dict[str, Path] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def digest(self, repository: str) -> str:
        index = json.loads((self.images[repository] / "index.json").read_bytes())
        return str(index["manifests"][0]["digest"])

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body: nobody may see `private/`, and what is not there is not found."""
        self.asked.append(path)
        parts = path.strip("/").split("/")
        if parts == ["v2"]:
            return 200, "application/json", b"{}"
        repository, kind, reference = "/".join(parts[1:-2]), parts[-2], parts[-1]
        if repository.startswith("private/"):
            return 401, "application/json", b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
        if repository not in self.images:
            return (
                404,
                "application/json",
                b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}',
            )
        digest = reference if reference.startswith("sha256:") else self.digest(repository)
        blob = self.images[repository] / "blobs/sha256" / digest.removeprefix("sha256:")
        if not blob.exists() or (kind == "manifests" and reference not in {"1", digest}):
            return 404, "application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
        return 200, _MANIFEST if kind == "manifests" else "application/octet-stream", blob.read_bytes()


@contextmanager
def served(registry: Registry) -> Iterator[Registry]:
    """The registry while it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = registry.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the server's own names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the server's own name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        registry.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
