import torch

from digits.model import LeptonNet, as_input, load


def test_grey_becomes_three_equal_channels_between_0_and_1():
    batch = as_input([[16] * 64, [0] * 32 + [8] * 32])
    assert batch.shape == (2, 3, 8, 8)
    assert batch[0].min() == 1
    assert batch[1, :, 0, 0].tolist() == [0, 0, 0]
    assert batch[1, :, 7, 7].tolist() == [0.5, 0.5, 0.5]


def test_each_image_gets_ten_scores():
    assert LeptonNet()(torch.rand(5, 3, 8, 8)).shape == (5, 10)


def test_a_saved_network_answers_as_before(tmp_path):
    model = LeptonNet().eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(load(tmp_path / "weights.pt")(images), model(images))
