"""Pixels for rows with images, exactly as many as their tokens were made for."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson
import torch
import torch.nn.functional as F
from PIL import Image

from configs.errors import UserError
from data.tokens.mistral_images import ImageForm, load_image_form, open_image


class ImageReader:
    """Reads the images of rows as a checkpoint's vision tower takes them.

    Scaled as mistral-common scales them, whose pixels these are to 1e-3: transformers' processor
    blurs while scaling down, and for 1 in 70 sizes gives another number of tokens.
    """

    def __init__(self, checkpoint: Path) -> None:
        """Errors: `UserError` where the model has no vision tower."""
        form = load_image_form(checkpoint)
        if form is None:
            raise UserError(
                "the rows hold images, and the model takes none",
                where=checkpoint,
                remedy="prepare the rows for this model: `tunery prepare` rejects them then",
            )
        self.form = form

    def read(self, messages: Sequence[str]) -> dict[str, torch.Tensor]:
        """The model's inputs for the images of rows, given as the JSON text of their turns.

        Empty where there are none, else, in the order of the rows: pixel_values, float32 of shape
        (images, 3, height, width), padded with 0 on the right and below; image_sizes, int64 of
        shape (images, 2): height and width without the padding.
        """
        pixels = [
            image_pixels(open_image(url), self.form) for row in messages for url in _image_urls(row)
        ]
        if not pixels:
            return {}
        sizes = torch.tensor([image.shape[1:] for image in pixels])
        height, width = sizes.amax(dim=0).tolist()
        padded = [
            F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]))
            for image in pixels
        ]
        return {"pixel_values": torch.stack(padded), "image_sizes": sizes}


def image_pixels(image: Image.Image, form: ImageForm) -> torch.Tensor:
    """An RGB image at the size of its tokens, float32 of shape (3, height, width), normalized.

    Bicubic without smoothing, as OpenCV's INTER_CUBIC, which the model's own encoder uses.
    """
    num_rows, num_columns = form.grid(*image.size)
    size = (num_rows * form.token_pixels, num_columns * form.token_pixels)
    pixels = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)
    scaled = F.interpolate(pixels[None], size=size, mode="bicubic", align_corners=False)[0]
    mean, std = (torch.tensor(channels)[:, None, None] for channels in (form.mean, form.std))
    return (scaled / 255 - mean) / std


def _image_urls(messages: str) -> Iterator[str]:
    for turn in orjson.loads(messages):
        if not isinstance(turn["content"], str):
            for part in turn["content"]:
                if part["type"] == "image_url":
                    yield part["image_url"]["url"]
