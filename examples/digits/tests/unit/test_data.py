import csv
import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from digits.data import TEST_EXAMPLES, name, read, split, write

SAMPLES = [json.loads(line) for line in Path("samples.jsonl").read_text().splitlines()]


def test_no_example_is_in_both_sets():
    _, labels = load_digits(return_X_y=True)
    train, test = split(labels)
    assert len(test) == TEST_EXAMPLES
    assert sorted([*train, *test]) == list(range(1797))


def test_both_sets_hold_every_digit_in_the_same_share():
    _, labels = load_digits(return_X_y=True)
    shares = [np.bincount(labels[rows]) / len(rows) for rows in split(labels)]
    assert np.allclose(*shares, atol=0.005)


def test_what_is_written_can_be_read(tmp_path):
    write(tmp_path)
    ids, images, labels = read("test", tmp_path)
    assert images.shape == (TEST_EXAMPLES, 64)
    assert set(labels) == set(range(10))
    with (tmp_path / "test.csv").open() as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == list(ids)


def test_the_samples_are_images_of_the_test_set():
    images, labels = load_digits(return_X_y=True)
    known = {name(row): row for row in split(labels)[1]}
    for sample in SAMPLES:
        row = known[sample["id"]]
        assert sample["truth"] == labels[row]
        assert sample["images"] == [list(images[row])]
