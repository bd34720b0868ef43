"""Images at the size that training saw them in, before llama.cpp scales them in its own way."""

import base64
import io
from pathlib import Path

import gguf
import numpy as np
from PIL import Image

from data.tokens.mistral_images import ImageForm, open_image
from data.tokens.rendered import RowProblem
from serve.engine import RequestRefused

SHARPNESS = -0.75
"""The cubic kernel's free coefficient, as OpenCV and torch have it."""


def read_image_form(mmproj: Path) -> ImageForm | None:
    """How a vision tower takes images; None for towers other than Mistral's."""
    fields = gguf.GGUFReader(mmproj).fields
    if fields["clip.projector_type"].contents() != "pixtral":
        return None
    return ImageForm(
        patch_size=int(fields["clip.vision.patch_size"].contents()),
        merge_size=int(fields["clip.vision.spatial_merge_size"].contents()),
        longest_edge=int(fields["clip.vision.image_size"].contents()),
    )


def fit_image(url: str, form: ImageForm | None, *, field: str) -> str:
    """The `data:` URL of the same image as PNG, in whole tokens, where the form is known.

    Raises `RequestRefused` for what is no image.
    """
    try:
        image = open_image(url)
    except RowProblem as problem:
        raise RequestRefused(f"the request {problem}", field=field) from problem
    if form is not None:
        num_rows, num_columns = form.grid(*image.size)
        image = resize(image, num_columns * form.token_pixels, num_rows * form.token_pixels)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Bicubic without smoothing, as `train.images.image_pixels`, rounded to whole brightnesses.

    Pillow's own bicubic smooths while it scales down and has another kernel.
    """
    if image.size == (width, height):
        return image
    pixels = np.asarray(image, np.float32)
    pixels = _resize_rows(pixels, height)
    pixels = _resize_rows(pixels.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _resize_rows(pixels: np.ndarray, num_rows: int) -> np.ndarray:
    """Float32 of shape (rows, columns, channels) with another number of rows."""
    if len(pixels) == num_rows:
        return pixels
    places = (np.arange(num_rows) + 0.5) * (len(pixels) / num_rows) - 0.5
    first = np.floor(places).astype(int)
    resized = np.zeros((num_rows, *pixels.shape[1:]), np.float32)
    for offset in (-1, 0, 1, 2):
        weights = _cubic(np.abs(places - first - offset)).astype(np.float32)
        rows = np.clip(first + offset, 0, len(pixels) - 1)
        resized += weights[:, None, None] * pixels[rows]
    return resized


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel (1981), for distances from 0 to 2 in pixels."""
    a, d = SHARPNESS, distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)
