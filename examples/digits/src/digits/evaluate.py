"""The evaluate step: ask the served package for every test image and write down what it says."""

import csv
import os

import httpx

from digits.data import read

BATCH = 60


def ask(client, images):
    """The digits that the server sees in these images."""
    reply = client.post("/predict", json={"images": images.tolist()})
    return reply.raise_for_status().json()["digits"]


def main():
    ids, images, _ = read("test")
    predictions = []
    with httpx.Client(base_url=os.environ["PENSTOCK_URL"], timeout=30, trust_env=False) as client:
        for start in range(0, len(images), BATCH):
            predictions += ask(client, images[start : start + BATCH])
    with open("predictions.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "prediction"])
        table.writerows(zip(ids, predictions, strict=True))
    print(f"{len(predictions)} predictions written")


if __name__ == "__main__":
    main()
