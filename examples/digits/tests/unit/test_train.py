import json

import numpy as np
import pytest
import torch

from digits.model import LeptonNet
from digits.serve import answer, images_of
from digits.train import measure, record, train


def trained(seed):
    torch.manual_seed(seed)
    model = LeptonNet()
    train(model, torch.rand(8, 3, 8, 8), torch.arange(8), epochs=1)
    return model.state_dict()


def test_the_same_seed_gives_the_same_weights():
    first, second = trained(seed=1), trained(seed=1)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_accuracy_is_the_share_of_correct_answers():
    scores = torch.eye(10)[:4]  # says 0, 1, 2, 3
    accuracy, loss = measure(torch.nn.Identity(), scores, torch.tensor([0, 1, 2, 9]))
    assert accuracy == 0.75
    assert loss > 0


def test_recorded_requests_are_answered_the_same(tmp_path):
    model, images = LeptonNet(), np.arange(128).reshape(2, 64) % 17
    record(model, np.array(["a", "b"]), images, tmp_path / "requests.jsonl")
    requests = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    assert [request["id"] for request in requests] == ["a", "b"]
    for request in requests:
        served = answer(model, images_of(request["json"]))
        assert served["digits"] == request["answer"]["digits"]
        assert served["probabilities"][0] == pytest.approx(request["answer"]["probabilities"][0])
