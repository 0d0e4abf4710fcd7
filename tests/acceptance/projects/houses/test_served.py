import csv
import json
import os
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest


def ask(body):
    headers = {"Content-Type": "application/json"}
    request = Request(os.environ["PENSTOCK_URL"] + "/predict", json.dumps(body).encode(), headers)
    with urlopen(request, timeout=10) as reply:
        return json.load(reply)


def test_every_row_of_the_test_set_is_answered():
    """The served package gives one prediction a row, each within what the truth can be."""
    with open("test.csv", newline="") as stream:
        rows = [[float(value) for value in row[1:-1]] for row in list(csv.reader(stream))[1:]]
    predictions = ask({"rows": rows})["predictions"]
    assert len(predictions) == len(rows)
    assert all(0 < value < 400 for value in predictions)


def test_a_bad_request_is_refused():
    """What is no list of rows is answered with 400 and a sentence that names the rows."""
    with pytest.raises(HTTPError) as refusal:
        ask({"rows": "none"})
    with refusal.value as reply:
        assert reply.code == 400
        assert "rows" in json.load(reply)["error"]
