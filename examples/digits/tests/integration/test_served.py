"""The served package, asked over HTTP with real images. How often it is right is for the gates to judge."""

import json
import os
from pathlib import Path

import httpx
import pytest

IMAGES = [json.loads(line)["images"][0] for line in Path("samples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def client():
    with httpx.Client(base_url=os.environ["PENSTOCK_URL"], timeout=30, trust_env=False) as client:
        yield client


def test_it_is_healthy(client):
    assert client.get("/health").status_code == 200


def test_real_images_get_digits_with_probabilities(client):
    answer = client.post("/predict", json={"images": IMAGES}).raise_for_status().json()
    assert len(answer["digits"]) == len(answer["probabilities"]) == len(IMAGES)
    for digit, probabilities in zip(answer["digits"], answer["probabilities"], strict=True):
        assert sum(probabilities) == pytest.approx(1)
        assert probabilities[digit] == max(probabilities)


def test_an_image_alone_is_answered_as_among_others(client):
    together = client.post("/predict", json={"images": IMAGES}).json()["probabilities"]
    alone = client.post("/predict", json={"images": IMAGES[:1]}).json()["probabilities"]
    assert alone[0] == pytest.approx(together[0], abs=1e-4)


@pytest.mark.parametrize("body", [b"", b"seven", b"[]", b'{"images": [[1, 2, 3]]}', b"\xff"])
def test_a_bad_request_is_refused(client, body):
    reply = client.post("/predict", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]


def test_an_unknown_address_is_not_found(client):
    assert client.get("/nowhere").status_code == 404
