"""LeptonNet, a small convolutional network, and how images become its input."""

import torch
from torch import nn

SIDE = 8  # an image is 8 × 8
WHITE = 16  # and its grey values run from 0 to 16


class LeptonNet(nn.Module):
    """From n × 3 × 8 × 8 colour values in 0…1 to n × 10 scores, one for each digit."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 128, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d((6, 6)),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(128 * 6 * 6, 1024),
            nn.ReLU(),
            nn.Linear(1024, 10),
        )

    def forward(self, images):
        return self.classifier(self.features(images))


def as_input(images):
    """The network's input for n images of 64 grey values: the one grey channel three times, scaled to 0…1."""
    grey = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, SIDE, SIDE)
    return grey.repeat(1, 3, 1, 1) / WHITE


def load(path):
    """A trained network, ready to answer. Only tensors are read from the file, never code."""
    model = LeptonNet()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()
