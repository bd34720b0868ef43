"""What an image must be before a model looks at it, and the one form in which engines get it.

The limits are those of Mistral's hosted models. Engines read images with libraries of their own,
which differ in what they make of transparency, palettes and a camera's note of how it was held; so
all but plain JPEG and PNG files leave here as PNG, with the very pixels that training sees.
"""

import base64
import binascii
import io
import threading
import warnings
from contextlib import nullcontext
from math import ceil

from PIL import Image, UnidentifiedImageError

from data.tokens.mistral_images import BROKEN_IMAGE, on_white

MAX_BYTES = 10 * 1024**2
MAX_SIDE = 10_000
"""Pixels of a side, above which an image is refused before it is decoded."""
LONGEST_EDGE = 1540
"""Pixels of the longer side of what models see."""

LARGE_PIXELS = 16_000_000
"""Of images with more pixels than that, only one is decoded at a time."""
_LARGE = threading.Lock()

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
BAND_ROWS = 128
"""Rows of a reduced image that are made at a time."""
ORIENTATION = 0x0112
"""EXIF's tag for how the camera was held; 1 is upright."""

# What Pillow remarks on files that strangers send is no news to those who run the server.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageProblem(Exception):
    """Why an image is refused, in words for the one who sent it."""


def check_image(content: bytes, *, longest_edge: int = LONGEST_EDGE) -> str:
    """A `data:` URL of the image in a file's bytes, at most `longest_edge` pixels a side.

    JPEG and PNG files of RGB or grey pixels that are small enough keep their bytes; all others
    become PNG files: transparent pixels white, the first picture of a camera's several, nothing
    turned, as `data.tokens.mistral_images.open_image` has it. Raises `ImageProblem`.

    For a thread: it decodes the whole image, in 4 bytes of memory a pixel (progressive JPEG 7,
    WEBP 15).
    """
    check_num_bytes(len(content))
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_header(image)
            is_large = image.width * image.height > LARGE_PIXELS
            with _LARGE if is_large else nullcontext():
                return _convert(image, content, longest_edge)
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except UnidentifiedImageError as error:
        raise ImageProblem("the image is no PNG, JPEG, WEBP or GIF file") from error
    except BROKEN_IMAGE as error:
        raise ImageProblem("the image is broken: it cannot be decoded as a whole") from error


def decode_data_url(url: str) -> bytes:
    """What a `data:` URL holds; its declared type is not looked at. Raises `ImageProblem`."""
    head, comma, payload = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ImageProblem("the image's `data:` URL must be `data:image/…;base64,` and its base64")
    check_num_bytes(len(payload) // 4 * 3 - 2)
    try:
        return binascii.a2b_base64(payload.encode("ascii"), strict_mode=True)
    except ValueError as error:
        raise ImageProblem(
            "the image's base64 is broken: it needs the standard alphabet with padding, "
            "and no white space"
        ) from error


def to_data_url(content: bytes, media_type: str) -> str:
    """A `data:` URL that holds `content`."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def check_num_bytes(num_bytes: int) -> None:
    """Raises `ImageProblem` for a file of more bytes than an image may have."""
    if num_bytes > MAX_BYTES:
        raise ImageProblem(f"the image has more than {MAX_BYTES // 1024**2} MiB")


def scaled_size(size: tuple[int, int], longest_edge: int) -> tuple[int, int]:
    """Width and height once the longer side has at most `longest_edge` pixels.

    Rounded as in `data.tokens.mistral_images.ImageForm.grid`, so that both count the same tokens.
    """
    width, height = size
    ratio = max(width, height) / longest_edge
    if ratio <= 1:
        return width, height
    return max(round(width / ratio), 1), max(round(height / ratio), 1)


def _check_header(image: Image.Image) -> None:
    if max(image.size) > MAX_SIDE:
        raise _too_large()
    # Several pictures in a JPEG file (MPO) are a camera's, of which the first one is meant.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageProblem("the image is animated; send a still one")


def _too_large() -> ImageProblem:
    return ImageProblem(f"the image has more than {MAX_SIDE} x {MAX_SIDE} pixels")


def _convert(image: Image.Image, content: bytes, longest_edge: int) -> str:
    width, height = scaled_size(image.size, longest_edge)
    is_scaled = (width, height) != image.size
    # JPEG files can be decoded at a fraction of their size.
    image.draft(None, (2 * width, 2 * height))
    # Only decoding as a whole tells whether all of it is there.
    image.load()
    if not is_scaled and _is_plain(image):
        return to_data_url(content, "image/png" if image.format == "PNG" else "image/jpeg")
    return to_data_url(_encode(_scale(image, width, height)), "image/png")


def _is_plain(image: Image.Image) -> bool:
    """Whether every reader of the file sees the same pixels."""
    return (
        image.format in ("JPEG", "MPO", "PNG")
        and (image.mode == "RGB" or (image.mode == "L" and "transparency" not in image.info))
        and _is_upright(image)
    )


def _is_upright(image: Image.Image) -> bool:
    try:
        return bool(image.getexif().get(ORIENTATION, 1) == 1)
    except BROKEN_IMAGE:
        return False  # in doubt it is left behind


def _scale(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image in RGB at a new size.

    In bands, each of which is made RGB and reduced by a whole factor: of a large image as a whole
    that would take several times its memory. The last step is left to a finer filter.
    """
    factor = max(max(image.size) // (2 * max(width, height)), 1)
    reduced_size = (image.width / factor, image.height / factor)
    reduced = Image.new("RGB", (ceil(reduced_size[0]), ceil(reduced_size[1])))
    for row in range(0, reduced.height, BAND_ROWS):
        bottom = min((row + BAND_ROWS) * factor, image.height)
        band = image.crop((0, row * factor, image.width, bottom))
        reduced.paste(on_white(band).reduce(factor), (0, row))
    if reduced.size == (width, height):
        return reduced
    return reduced.resize((width, height), Image.Resampling.BICUBIC, box=(0, 0, *reduced_size))


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
