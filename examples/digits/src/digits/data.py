"""The data step: scikit-learn's digits, split once and for all into a train set and a test set of 360 examples.

scikit-learn is imported where it is used: the steps that only read what this one wrote start a second sooner.
"""

import csv
from pathlib import Path

import numpy as np

DATA = Path("data")
SEED = 2024
TEST_EXAMPLES = 360


def split(labels):
    """Two sorted arrays of row numbers, (train, test), in which every digit has its fair share."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=TEST_EXAMPLES, stratify=labels, random_state=SEED)
    return np.sort(train), np.sort(test)


def name(row):
    """The id of an example: the same in every commit, so that two models can be compared example by example."""
    return f"digit-{row:04d}"


def write(folder=DATA):
    """Write train.npz and test.npz, and test.csv, the truth for predictions; how many examples each set has."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    train, test = split(labels)
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in (("train.npz", train), ("test.npz", test)):
        np.savez(folder / file, ids=[name(row) for row in rows], images=images[rows], labels=labels[rows])
    with (folder / "test.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "truth"])
        table.writerows([name(row), labels[row]] for row in test)
    return len(train), len(test)


def read(which, folder=DATA):
    """The ids, images (n × 64 grey values from 0 to 16) and labels (n digits) of the "train" or the "test" set."""
    with np.load(folder / f"{which}.npz") as arrays:
        return arrays["ids"], arrays["images"], arrays["labels"]


if __name__ == "__main__":
    train, test = write()
    print(f"{train} examples to train on, {test} to test on")
