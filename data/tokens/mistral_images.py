"""Images of Mistral's v7 models: how they are opened, and which tokens they take.

What prepares the tokens and what later reads the pixels share all of this, so that a row has as
many tokens as the vision tower gives features. Held against mistral-common's `ImageEncoder`.
"""

import base64
import io
import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from configs.errors import UserError
from data.tokens.rendered import RowProblem

IMG, IMG_BREAK, IMG_END = 10, 12, 13
# What Pillow's readers raise on damaged files of one format or another.
BROKEN_IMAGE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, SyntaxError, RuntimeError),
    *(struct.error, zlib.error),
)
Channels = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ImageForm:
    """How a model takes images; the defaults are Mistral Small 3.1's.

    patch_size: side, in pixels, of what the vision tower sees at a time; merge_size: patches a side
    that the projector makes one token of; longest_edge: larger images are scaled down to that many
    pixels; mean, std: of the channels red, green and blue, where 1 is full brightness.
    """

    patch_size: int = 14
    merge_size: int = 2
    longest_edge: int = 1540
    mean: Channels = (0.48145466, 0.4578275, 0.40821073)
    std: Channels = (0.26862954, 0.26130258, 0.27577711)

    @property
    def token_pixels(self) -> int:
        """Side of a token in pixels."""
        return self.patch_size * self.merge_size

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tokens of an image of that many pixels.

        The longer side is scaled down to at most `longest_edge` pixels, then each side is rounded
        up to whole tokens, as in `mistral_common.tokens.tokenizers.image.ImageEncoder`.
        """
        ratio = max(width, height) / self.longest_edge
        if ratio > 1:
            width, height = max(round(width / ratio), 1), max(round(height / ratio), 1)
        return (height - 1) // self.token_pixels + 1, (width - 1) // self.token_pixels + 1

    def token_ids(self, image: Image.Image) -> list[int]:
        """The ids that stand for an image in a row of tokens."""
        num_rows, num_columns = self.grid(*image.size)
        row = [IMG] * num_columns
        return [*([*row, IMG_BREAK] * (num_rows - 1)), *row, IMG_END]


def load_image_form(checkpoint: Path) -> ImageForm | None:
    """The form of a checkpoint's images, None where its model has no vision tower.

    Patches and their merging are the model's (config.json); sizes and colours its image
    processor's, where one is told. Errors: `UserError` for a file that is not JSON.
    """
    config = _load_json(checkpoint / "config.json")
    if config.get("model_type") != "mistral3":
        return None
    tower = config.get("vision_config") or {}
    # Newer checkpoints keep the image processor within the processor.
    processor = _load_json(checkpoint / "processor_config.json").get("image_processor") or {}
    processor |= _load_json(checkpoint / "preprocessor_config.json")
    size = processor.get("size") or {}
    told = {
        "patch_size": tower.get("patch_size"),
        "merge_size": config.get("spatial_merge_size"),
        "longest_edge": size.get("longest_edge", tower.get("image_size")),
        "mean": processor.get("image_mean"),
        "std": processor.get("image_std"),
    }
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in told.items()
        if value is not None
    }
    return ImageForm(**fields)


def open_image(url: str) -> Image.Image:
    """The image behind a `data:` URL, decoded, in RGB; a `RowProblem` where there is none.

    As mistral-common has it: transparent pixels are white, the first picture of several is taken,
    and a camera's note that it was held sideways (EXIF) turns nothing.
    """
    head, comma, payload = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64") or not comma:
        raise RowProblem("holds an image that is not a base64 `data:` URL")
    try:
        with Image.open(io.BytesIO(base64.b64decode(payload))) as image:
            # Only decoding as a whole tells whether all of it is there.
            image.load()
            return on_white(image)
    except Image.DecompressionBombError as error:
        raise RowProblem("holds an image of more pixels than are safe to read") from error
    except BROKEN_IMAGE as error:
        raise RowProblem("holds an image that cannot be read") from error


def on_white(image: Image.Image) -> Image.Image:
    """The image in red, green and blue; what is transparent becomes white."""
    if image.mode == "RGB":
        return image
    # In this mode palettes, grey and printers' colours are resolved, and so is their transparency.
    image = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.paste(image, mask=image)
    return canvas.convert("RGB")


def _load_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"the file is not JSON: {error}", where=file, remedy="fetch the model's files again"
        ) from error
    return loaded
