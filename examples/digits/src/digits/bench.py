"""The performance step: how long one client waits for one image, again and again."""

import json
import os
from pathlib import Path
from time import perf_counter

import httpx
import numpy as np

from digits.data import read

WARM_UP = 20
REQUESTS = 300


def durations(client, images):
    """The seconds that each request took, one image each."""
    seconds = []
    for number in range(WARM_UP + REQUESTS):
        body = {"images": [images[number % len(images)].tolist()]}
        start = perf_counter()
        client.post("/predict", json=body).raise_for_status()
        seconds.append(perf_counter() - start)
    return seconds[WARM_UP:]


def main():
    _, images, _ = read("test")
    with httpx.Client(base_url=os.environ["PENSTOCK_URL"], timeout=30, trust_env=False) as client:
        seconds = durations(client, images)
    p50, p99 = 1000 * np.percentile(seconds, [50, 99])
    result = {"p50_ms": p50, "p99_ms": p99, "requests_per_second": len(seconds) / sum(seconds)}
    Path("bench.json").write_text(json.dumps(result))
    print(", ".join(f"{name} {value:.1f}" for name, value in result.items()))


if __name__ == "__main__":
    main()
