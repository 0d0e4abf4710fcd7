import pytest

from digits.model import LeptonNet
from digits.serve import answer, images_of

IMAGE = [0, 16] * 32


def test_images_are_accepted():
    assert images_of({"images": [IMAGE, IMAGE]}) == [IMAGE, IMAGE]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([], "1 to 256 images"),
        ({}, "1 to 256 images"),
        ({"images": []}, "1 to 256 images"),
        ({"images": [IMAGE] * 257}, "1 to 256 images"),
        ({"images": [IMAGE, IMAGE[1:]]}, "image 1 must be a list of 64 numbers"),
        ({"images": [["7"] * 64]}, "numbers from 0 to 16"),
        ({"images": [[17] * 64]}, "numbers from 0 to 16"),
        ({"images": [[float("nan")] * 64]}, "numbers from 0 to 16"),
    ],
)
def test_anything_else_is_refused(body, sentence):
    with pytest.raises(ValueError, match=sentence):
        images_of(body)


def test_the_answer_is_the_most_probable_digit():
    reply = answer(LeptonNet().eval(), [IMAGE] * 3)
    assert len(reply["digits"]) == 3
    for digit, probabilities in zip(reply["digits"], reply["probabilities"], strict=True):
        assert sum(probabilities) == pytest.approx(1)
        assert probabilities[digit] == max(probabilities)
