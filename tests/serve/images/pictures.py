"""Files of images for tests, made from pixels that every position can be told by."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, blue with both."""
    right = np.linspace(0, 255, width)[None, :].repeat(height, axis=0)
    down = np.linspace(0, 255, height)[:, None].repeat(width, axis=1)
    pixels = np.stack([right, down, (right + down) / 2], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: ANN401 - as Pillow has them
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decoded(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def empty_png(width: int, height: int) -> bytes:
    """A valid file of black pixels of one bit: few bytes, whatever its size."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(pixels.compress(row) for _ in range(height)) + pixels.flush()
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    return PNG_SIGNATURE + chunks
