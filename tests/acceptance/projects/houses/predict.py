"""Load the package's model and write what it foretells beside the truth: predictions.csv."""

import csv
import os
from pathlib import Path

import joblib


def main():
    model = joblib.load(Path(os.environ["PENSTOCK_PACKAGE"]) / "model.joblib")
    with open("test.csv", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    predictions = model.predict([[float(value) for value in row[1:-1]] for row in rows])
    with open("predictions.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "truth", "prediction"])
        table.writerows([row[0], row[-1], prediction] for row, prediction in zip(rows, predictions, strict=True))


if __name__ == "__main__":
    main()
