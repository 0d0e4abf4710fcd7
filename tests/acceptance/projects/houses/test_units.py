import numpy as np
import pytest
from prepare import table
from serve import application, rows_of

ROW = [0.01] * 10


class Constant:
    def predict(self, rows):
        return np.full(len(rows), 150.0)


def test_each_row_has_an_id_ten_measurements_and_the_truth():
    """The table has twelve columns in every row, and each of its 442 ids once."""
    header, rows = table()
    assert len(header) == 12
    assert {len(row) for row in rows} == {12}
    assert len({row[0] for row in rows}) == len(rows) == 442


@pytest.mark.parametrize(
    "body",
    [None, [], {}, {"rows": []}, {"rows": [ROW, ROW[1:]]}, {"rows": [["a"] * 10]}, {"rows": [[float("nan")] * 10]}],
)
def test_a_body_without_rows_is_refused(body):
    """A body that holds no rows of ten numbers is refused in a sentence on rows."""
    with pytest.raises(ValueError, match="row"):
        rows_of(body)


def test_each_row_is_answered():
    """The server is healthy, answers each row, and refuses what is no JSON."""
    client = application(Constant()).test_client()
    assert client.get("/healthz").status_code == 200
    assert client.post("/predict", json={"rows": [ROW, ROW]}).json == {"predictions": [150.0, 150.0]}
    assert client.post("/predict", data="no JSON").status_code == 400
