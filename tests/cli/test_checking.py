"""What `check` reads beside the pipeline file, before anything is run."""

from pathlib import Path

import pytest

from penstock.cli.checking import check_recordings
from penstock.errors import ReportError
from penstock.sources.definitions import load

FILE = b"""\
name: x
steps: {train: {run: "true"}}
package: {code: [asked.jsonl], serve: python serve.py}
environments: {production: {port: 8800, probe: asked.jsonl}}
"""


def test_recorded_requests_are_read_where_they_lie(tmp_path: Path) -> None:
    """A bad line is told with file and line; a file that is not there may be made by a step."""
    pipeline = load(FILE, "penstock.yaml")
    check_recordings(pipeline, tmp_path)
    (tmp_path / "asked.jsonl").write_text('{"path": "/"}\n{"path": "/", "body": {"x": 1}}\n')
    with pytest.raises(ReportError, match=r'^asked\.jsonl:2: body is \{"x": 1\}: expected a text .* "json"'):
        check_recordings(pipeline, tmp_path)
    (tmp_path / "asked.jsonl").write_text('{"path": "/", "json": {"x": 1}}\n')
    check_recordings(pipeline, tmp_path)
