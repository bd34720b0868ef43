"""How many tokens an image takes in Mistral's v7 models, from its size alone."""

import base64
import binascii
import io

from PIL import Image, UnidentifiedImageError

from data.tokens.rendered import RowProblem

IMG, IMG_BREAK, IMG_END = 10, 12, 13
MAX_SIDE_PIXELS = 1540
# The tower sees patches of 14 pixels, and the projector merges 2 × 2 of them into one token.
TOKEN_PIXELS = 14 * 2


def image_grid(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tokens of an image of that many pixels.

    The longer side is scaled down to at most 1540 pixels, then each side is rounded up to whole
    tokens, as in `mistral_common.tokens.tokenizers.image.ImageEncoder`.
    """
    ratio = max(width, height) / MAX_SIDE_PIXELS
    if ratio > 1:
        width, height = max(round(width / ratio), 1), max(round(height / ratio), 1)
    return (height - 1) // TOKEN_PIXELS + 1, (width - 1) // TOKEN_PIXELS + 1


def image_ids(url: str) -> list[int]:
    """Token ids of the image behind a `data:` URL; a `RowProblem` where there is none."""
    head, comma, payload = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64") or not comma:
        raise RowProblem("holds an image that is not a base64 `data:` URL")
    try:
        with Image.open(io.BytesIO(base64.b64decode(payload))) as image:
            num_rows, num_columns = image_grid(*image.size)
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError) as error:
        raise RowProblem("holds an image that cannot be read") from error
    except Image.DecompressionBombError as error:
        raise RowProblem("holds an image of more pixels than are safe to read") from error
    row = [IMG] * num_columns
    return [*([*row, IMG_BREAK] * (num_rows - 1)), *row, IMG_END]
