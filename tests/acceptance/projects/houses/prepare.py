"""Write train.csv and test.csv: an id, the ten measurements, and the value to foretell."""

import csv

from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

ROWS_TO_TEST = 110


def table():
    """The header, and a row for each example."""
    data = load_diabetes()
    header = ["id", *data.feature_names, "truth"]
    rows = zip(data.data.tolist(), data.target.tolist(), strict=True)
    return header, [[number, *features, target] for number, (features, target) in enumerate(rows)]


def main():
    header, rows = table()
    train, test = train_test_split(rows, test_size=ROWS_TO_TEST, random_state=0)
    for path, part in (("train.csv", train), ("test.csv", test)):
        with open(path, "w", newline="") as stream:
            csv.writer(stream).writerows([header, *part])


if __name__ == "__main__":
    main()
