import base64
import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mistral_common.protocol.instruct.chunk import ImageChunk
from mistral_common.tokens.tokenizers import image as mistral_image
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
from PIL import Image

from configs.errors import UserError
from data.tokens.mistral_images import (
    IMG,
    IMG_BREAK,
    IMG_END,
    ImageForm,
    load_image_form,
    open_image,
)
from data.tokens.rendered import RowProblem

FORM = ImageForm()
SMALL = ImageForm(patch_size=16, merge_size=1, longest_edge=320)
ORIENTATION = 0x0112


def encoder(form: ImageForm) -> ImageEncoder:
    config = ImageConfig(form.patch_size, form.longest_edge, form.merge_size)
    return ImageEncoder(config, SpecialImageIDs(IMG, IMG_BREAK, IMG_END))


def data_url(image: Image.Image, format: str = "PNG", **options: object) -> str:
    data = io.BytesIO()
    image.save(data, format, **options)
    return to_url(data.getvalue(), format)


def to_url(data: bytes, format: str = "PNG") -> str:
    return f"data:image/{format.lower()};base64,{base64.b64encode(data).decode()}"


# Tokens.


@given(width=st.integers(1, 4000), height=st.integers(1, 4000), form=st.sampled_from([FORM, SMALL]))
@example(width=1, height=1, form=FORM)
@example(width=28, height=29, form=FORM)
@example(width=1540, height=1541, form=FORM)
@example(width=4000, height=1, form=FORM)
@example(width=1541, height=4000, form=FORM)
@example(width=4000, height=75, form=FORM)
@example(width=75, height=4000, form=FORM)
def test_the_tokens_of_an_image_are_those_of_mistral_common(
    width: int, height: int, form: ImageForm
) -> None:
    image = Image.new("1", (width, height))
    with pytest.MonkeyPatch.context() as patch:
        # The pixels take OpenCV and change no token.
        patch.setattr(mistral_image, "transform_image", lambda *_: np.zeros((3, 1, 1)))
        expected = encoder(form)(ImageChunk(image=image)).tokens
    num_rows, num_columns = form.grid(width, height)
    assert len(expected) == num_rows * (num_columns + 1)
    assert form.token_ids(image) == expected


@pytest.mark.parametrize(
    ("size", "grid"),
    [((28, 28), (1, 1)), ((29, 28), (1, 2)), ((1540, 1540), (55, 55)), ((3080, 770), (14, 55))],
)
def test_the_grid_of_a_size(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert FORM.grid(*size) == grid


# The form of a model.


def write(folder: Path, **files: object) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_a_model_that_tells_nothing_takes_images_as_mistral_small_does(tmp_path: Path) -> None:
    assert load_image_form(write(tmp_path, config={"model_type": "mistral3"})) == ImageForm()


@pytest.mark.parametrize("config", [{"model_type": "mistral"}, {"vision_config": {}}, {}])
def test_a_model_without_a_vision_tower_takes_none(tmp_path: Path, config: object) -> None:
    assert load_image_form(write(tmp_path, config=config)) is None


def test_a_folder_without_a_configuration_takes_none(tmp_path: Path) -> None:
    assert load_image_form(tmp_path) is None


def test_patches_are_the_towers_and_sizes_and_colours_the_processors(tmp_path: Path) -> None:
    config = {
        "model_type": "mistral3",
        "spatial_merge_size": 1,
        "vision_config": {"patch_size": 16, "image_size": 1024},
    }
    write(tmp_path, config=config)
    of_the_model = ImageForm(patch_size=16, merge_size=1, longest_edge=1024)
    assert load_image_form(tmp_path) == of_the_model
    processor = {
        "patch_size": {"height": 99, "width": 99},
        "size": {"longest_edge": 512},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.1, 0.2, 0.3],
    }
    expected = ImageForm(
        patch_size=16, merge_size=1, longest_edge=512, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)
    )
    write(tmp_path, processor_config={"image_processor": processor, "patch_size": 99})
    assert load_image_form(tmp_path) == expected
    (tmp_path / "processor_config.json").unlink()
    write(tmp_path, preprocessor_config=processor)
    assert load_image_form(tmp_path) == expected


def test_a_configuration_that_is_not_json_is_told(tmp_path: Path) -> None:
    write(tmp_path, config={"model_type": "mistral3"})
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON") as caught:
        load_image_form(tmp_path)
    assert str(tmp_path / "preprocessor_config.json") in str(caught.value)


# Pixels.


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), (255, 255, 255)),
        ("1", 1, (255, 255, 255)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("P", 0, (9, 8, 7)),
        ("I;16", 300, (255, 255, 255)),
    ],
)
def test_every_kind_of_colour_becomes_red_green_and_blue_on_white(
    mode: str, colour: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    image = Image.new(mode, (3, 2), colour)
    if mode == "P":
        image.putpalette([9, 8, 7])
    opened = open_image(data_url(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert (opened.mode, opened.size) == ("RGB", (3, 2))
    assert (np.asarray(opened) == expected).all()


def test_the_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 1, 2, 3])
    image.putpixel((1, 0), 1)
    opened = open_image(data_url(image, "GIF", transparency=0))
    assert np.asarray(opened).tolist() == [[[255, 255, 255], [1, 2, 3]]]


def test_the_first_picture_of_several_is_taken() -> None:
    first, second = (Image.new("RGB", (2, 2), colour) for colour in ("red", "blue"))
    url = data_url(first, "GIF", save_all=True, append_images=[second])
    assert open_image(url).getpixel((0, 0)) == (255, 0, 0)


def test_a_camera_held_sideways_turns_nothing() -> None:
    image = Image.new("RGB", (60, 30))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    opened = open_image(data_url(image, "JPEG", exif=exif))
    assert opened.getexif()[ORIENTATION] == 6
    assert opened.size == (60, 30)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_the_format_of_an_image_changes_no_token(format: str) -> None:
    opened = open_image(data_url(Image.new("RGB", (60, 30)), format))
    assert FORM.token_ids(opened) == [IMG, IMG, IMG, IMG_BREAK, IMG, IMG, IMG, IMG_END]


# Faults.


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
        open_image(url)
    assert str(caught.value) == problem


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_damaged_image_is_a_problem_and_never_a_crash(format: str) -> None:
    chance = random.Random(17)
    noise = Image.frombytes("RGB", (40, 30), chance.randbytes(3600))
    whole = base64.b64decode(data_url(noise, format).partition(",")[2])
    problems = 0
    for _ in range(200):
        data = bytearray(whole[: chance.randrange(1, len(whole))])
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            assert open_image(to_url(bytes(data), format)).mode == "RGB"
        except RowProblem:
            problems += 1
    # A picture that lacks its end counts as damaged, whatever its header says.
    assert problems > 150


def test_an_image_of_more_pixels_than_are_safe_to_read_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(RowProblem, match="more pixels than are safe"):
        open_image(data_url(Image.new("1", (20, 20))))
