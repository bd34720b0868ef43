import base64
import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mistral_common.protocol.instruct.chunk import ImageChunk
from mistral_common.tokens.tokenizers import image as mistral_image
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
from PIL import Image

from data.tokens.mistral_images import IMG, IMG_BREAK, IMG_END, image_grid, image_ids
from data.tokens.rendered import RowProblem

# Patches of 14 pixels, 1540 pixels at most, 2 × 2 patches to a token.
ENCODER = ImageEncoder(ImageConfig(14, 1540, 2), SpecialImageIDs(IMG, IMG_BREAK, IMG_END))


def data_url(image: Image.Image, format: str = "PNG") -> str:
    data = io.BytesIO()
    image.save(data, format)
    return f"data:image/{format.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


@given(width=st.integers(1, 4000), height=st.integers(1, 4000))
@example(width=1, height=1)
@example(width=28, height=29)
@example(width=1540, height=1541)
@example(width=4000, height=1)
@example(width=1541, height=4000)
@example(width=4000, height=75)
@example(width=75, height=4000)
def test_the_tokens_of_an_image_are_those_of_mistral_common(width: int, height: int) -> None:
    image = Image.new("1", (width, height))
    with pytest.MonkeyPatch.context() as patch:
        # The pixels take OpenCV and change no token.
        patch.setattr(mistral_image, "transform_image", lambda *_: np.zeros((3, 1, 1)))
        expected = ENCODER(ImageChunk(image=image)).tokens
    num_rows, num_columns = image_grid(width, height)
    assert len(expected) == num_rows * (num_columns + 1)
    assert image_ids(data_url(image)) == expected


@pytest.mark.parametrize(
    ("size", "grid"),
    [((28, 28), (1, 1)), ((29, 28), (1, 2)), ((1540, 1540), (55, 55)), ((3080, 770), (14, 55))],
)
def test_the_grid_of_a_size(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert image_grid(*size) == grid


def test_the_format_of_an_image_changes_nothing() -> None:
    image = Image.new("RGB", (60, 30))
    expected = [IMG, IMG, IMG, IMG_BREAK, IMG, IMG, IMG, IMG_END]
    for format in ("PNG", "JPEG", "WEBP", "GIF"):
        assert image_ids(data_url(image, format)) == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://example.org/a.png", "holds an image that is not a base64 `data:` URL"),
        ("data:image/png,abc", "holds an image that is not a base64 `data:` URL"),
        ("data:image/png;base64", "holds an image that is not a base64 `data:` URL"),
        ("data:image/png;base64,", "holds an image that cannot be read"),
        ("data:image/png;base64,abc", "holds an image that cannot be read"),
        ("data:image/png;base64,bm8gaW1hZ2U=", "holds an image that cannot be read"),
        (data_url(Image.new("1", (9, 9)))[:60], "holds an image that cannot be read"),
    ],
)
def test_an_image_that_cannot_be_read_is_told(url: str, problem: str) -> None:
    with pytest.raises(RowProblem) as caught:
        image_ids(url)
    assert str(caught.value) == problem


def test_an_image_of_more_pixels_than_are_safe_to_read_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(RowProblem, match="more pixels than are safe"):
        image_ids(data_url(Image.new("1", (20, 20))))
