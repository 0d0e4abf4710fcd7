"""The train step: fit LeptonNet to the train set, save its weights, and say how well it learned.

It also records what the trained network answers to some requests, so that the served one can be held against it.
"""

import json
import os
from pathlib import Path

import torch
from torch import nn

from digits.data import read
from digits.model import LeptonNet, as_input

SEED = 2024
BATCH = 64
WEIGHTS = Path("model/leptonnet.pt")
REQUESTS = Path("requests.jsonl")
RECORDED = 50


def train(model, images, labels, epochs):
    """Show the network all images `epochs` times, in batches of a new random order each time."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    model.train()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch} of {epochs}: loss {total / len(images):.4f}", flush=True)


@torch.inference_mode()
def measure(model, images, labels):
    """The share of correct answers and the mean loss, as two numbers."""
    model.eval()
    scores = model(images)
    accuracy = (scores.argmax(dim=1) == labels).double().mean().item()
    return accuracy, nn.functional.cross_entropy(scores, labels).item()


@torch.inference_mode()
def record(model, ids, images, file):
    """Write a request with one image a line, and the answer that the network itself gives."""
    model.eval()
    with file.open("w") as stream:
        for name, image in zip(ids.tolist(), images.tolist(), strict=True):
            probabilities = model(as_input([image])).softmax(dim=1)
            answer = {"digits": probabilities.argmax(dim=1).tolist(), "probabilities": probabilities.tolist()}
            request = {"id": name, "path": "/predict", "json": {"images": [image]}, "answer": answer}
            stream.write(json.dumps(request) + "\n")


def tensors(which):
    """The network's input and the right answers of the "train" or the "test" set."""
    _, images, labels = read(which)
    return as_input(images), torch.as_tensor(labels)


def main():
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # sums in one order however many cores there are, and other steps keep theirs
    model = LeptonNet()
    train(model, *tensors("train"), epochs=int(os.environ.get("EPOCHS", "4")))

    WEIGHTS.parent.mkdir(exist_ok=True)
    torch.save(model.state_dict(), WEIGHTS)
    ids, images, _ = read("test")
    record(model, ids[:RECORDED], images[:RECORDED], REQUESTS)

    accuracy, loss = measure(model, *tensors("train"))
    test_accuracy, test_loss = measure(model, *tensors("test"))
    metrics = {"accuracy": accuracy, "loss": loss, "test_accuracy": test_accuracy, "test_loss": test_loss}
    Path("metrics.json").write_text(json.dumps(metrics))
    print(f"accuracy {accuracy:.4f} on the train set, {test_accuracy:.4f} on the test set")


if __name__ == "__main__":
    main()
