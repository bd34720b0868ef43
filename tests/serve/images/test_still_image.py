"""What an image must be, and the form in which it leaves."""

import base64
import io
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.tokens.mistral_images import ImageForm, open_image
from serve.images.still_image import (
    MAX_BYTES,
    ORIENTATION,
    ImageProblem,
    check_image,
    decode_data_url,
    scaled_size,
    to_data_url,
)
from tests.serve.images.pictures import (
    PNG_SIGNATURE,
    decoded,
    empty_png,
    encoded,
    gradient,
    png_chunk,
)

SMALL = gradient(60, 40)


def checked(content: bytes) -> bytes:
    return decode_data_url(check_image(content))


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (encoded(SMALL, "PNG"), "png"),
        (encoded(SMALL.convert("L"), "PNG"), "png"),
        (encoded(SMALL, "JPEG"), "jpeg"),
        (encoded(SMALL, "JPEG", progressive=True), "jpeg"),
        (encoded(SMALL.convert("L"), "JPEG"), "jpeg"),
        (encoded(gradient(1540, 3), "PNG"), "png"),
    ],
)
def test_plain_files_keep_their_bytes(content: bytes, media_type: str) -> None:
    assert check_image(content) == to_data_url(content, f"image/{media_type}")


def _palette() -> Image.Image:
    return SMALL.convert("P", palette=Image.Palette.ADAPTIVE)


def _half_transparent() -> Image.Image:
    image = SMALL.convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))))
    return image


@pytest.mark.parametrize(
    "content",
    [
        encoded(_palette(), "GIF"),
        encoded(_palette(), "GIF", transparency=7),
        encoded(_palette(), "PNG", transparency=7),
        encoded(SMALL.convert("1"), "PNG"),
        encoded(SMALL.convert("L"), "PNG", transparency=100),
        encoded(SMALL.convert("LA"), "PNG"),
        encoded(_half_transparent(), "PNG"),
        encoded(_half_transparent(), "WEBP", lossless=True),
        encoded(SMALL, "WEBP"),
        encoded(SMALL.convert("CMYK"), "JPEG"),
        encoded(Image.fromarray(np.full((9, 7), 40_000, np.uint16)), "PNG"),
    ],
    ids=lambda content: decoded(content).format or "",
)
def test_all_else_becomes_a_png_of_the_pixels_that_training_sees(content: bytes) -> None:
    url = check_image(content)
    assert url.startswith("data:image/png;base64,")
    served = decoded(decode_data_url(url))
    assert served.mode == "RGB"
    assert served.tobytes() == open_image(to_data_url(content, "image/x")).tobytes()


def test_nothing_is_turned_and_no_engine_learns_that_it_could_be() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded(SMALL, "JPEG", exif=exif)
    served = decoded(checked(content))
    assert served.tobytes() == open_image(to_data_url(content, "image/jpeg")).tobytes()
    assert ORIENTATION not in served.getexif()


def test_other_notes_of_a_camera_change_nothing() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    content = encoded(SMALL, "JPEG", exif=exif)
    assert checked(content) == content


def test_the_first_of_a_cameras_pictures_is_taken() -> None:
    buffer = io.BytesIO()
    SMALL.save(buffer, "MPO", save_all=True, append_images=[SMALL.rotate(180)])
    assert decoded(buffer.getvalue()).format == "MPO"
    assert check_image(buffer.getvalue()) == to_data_url(buffer.getvalue(), "image/jpeg")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(1541, 40), (40, 1541), (3300, 2200), (3081, 1000), (7001, 900)])
def test_large_images_are_scaled_down_and_show_the_same(format: str, size: tuple[int, int]) -> None:
    served = decoded(checked(encoded(gradient(*size), format)))
    assert max(served.size) == 1540
    assert served.size == scaled_size(size, 1540)
    wanted = np.asarray(gradient(*served.size), dtype=np.int16)
    difference = np.abs(np.asarray(served, dtype=np.int16) - wanted)
    # The coarsest of the formats, WEBP, is off by that much on the way alone.
    assert difference.mean() < 2.5
    assert np.abs(difference.mean(axis=(0, 2))).max() < 8  # to both edges


@pytest.mark.parametrize("size", [(7001, 700), (700, 7001)])
def test_scaling_in_bands_matches_pillows_of_the_whole(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 4, size[::-1], dtype=np.uint8) * 80
    noise[:, size[0] // 2 :] //= 2
    image = Image.fromarray(noise)
    served = decoded(checked(encoded(image, "PNG")))
    whole = image.resize(served.size, Image.Resampling.BICUBIC).convert("RGB")
    difference = np.asarray(served, dtype=np.int16) - np.asarray(whole, dtype=np.int16)
    # Neighbours of the scaled noise differ by 20; a band out of place would by as much.
    assert np.abs(difference).mean(axis=(0, 2)).max() < 5
    assert np.abs(difference).mean(axis=(1, 2)).max() < 5


def test_the_size_is_the_one_whose_tokens_are_counted() -> None:
    form = ImageForm()
    for size in [(1541, 1000), (5000, 3333), (10_000, 1), (3, 9999), (2048, 1537), (9999, 9998)]:
        assert form.grid(*size) == form.grid(*scaled_size(size, form.longest_edge))


def _animation(format: str) -> bytes:
    frames = [SMALL.rotate(90), SMALL.rotate(180)]
    return encoded(SMALL, format, save_all=True, append_images=frames)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animated_images_are_refused(format: str) -> None:
    with pytest.raises(ImageProblem, match="animated"):
        check_image(_animation(format))


def _gif_bomb() -> bytes:
    content = bytearray(encoded(_palette(), "GIF"))
    content[6:10] = struct.pack("<HH", 65_535, 65_535)
    return bytes(content)


def _webp_bomb() -> bytes:
    content = bytearray(encoded(_half_transparent(), "WEBP"))
    assert content[12:16] == b"VP8X"
    content[24:30] = b"\xfe\x3f\x00\xfe\x3f\x00"
    return bytes(content)


def _png_of(width: int, height: int) -> bytes:
    """A header that promises pixels which never come."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"")


@pytest.mark.parametrize(
    "make",
    [
        lambda: empty_png(10_001, 8),
        lambda: empty_png(8, 10_001),
        lambda: _png_of(10_001, 10_001),
        lambda: _png_of(2**31 - 1, 2**31 - 1),
        _gif_bomb,
        _webp_bomb,
    ],
)
def test_too_many_pixels_are_refused_by_the_header_alone(make: Callable[[], bytes]) -> None:
    with pytest.raises(ImageProblem, match="10000 x 10000"):
        check_image(make())


def test_the_largest_image_is_taken_in_bounded_memory() -> None:
    content = empty_png(10_000, 10_000)
    assert len(content) < 100_000
    program = (
        "import resource, sys; from serve.images.still_image import check_image;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "before = peak(); url = check_image(sys.stdin.buffer.read());"
        "print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    assert b"Warning" not in run.stderr
    # A byte a pixel here, and little beside it; as a whole in RGBA it would be eight times that.
    assert int(run.stdout) * 1024 < 1.6 * 10_000**2


def test_more_than_ten_mebibytes_are_refused() -> None:
    content = encoded(SMALL, "PNG")
    full = content + bytes(MAX_BYTES - len(content))  # what follows the last chunk is not read
    assert checked(full) == full
    with pytest.raises(ImageProblem, match="10 MiB"):
        check_image(full + b"\0")
    with pytest.raises(ImageProblem, match="10 MiB"):
        decode_data_url(to_data_url(bytes(MAX_BYTES + 3), "image/png"))


def _broken() -> list[bytes]:
    files = [encoded(gradient(200, 200), format) for format in ("PNG", "JPEG", "WEBP", "GIF")]
    return [
        *(file[: len(file) // 2] for file in files),
        *(file[:40] for file in files),
        files[0].replace(b"IDAT", b"IDAX", 1),
        _png_of(10, 10),
        empty_png(0, 0),
    ]


@pytest.mark.parametrize("content", _broken())
def test_broken_images_are_refused(content: bytes) -> None:
    with pytest.raises(ImageProblem, match=r"broken|no PNG"):
        check_image(content)


@pytest.mark.parametrize("format", ["TIFF", "BMP", "PPM", "ICO", "PDF", "EPS", "JPEG2000", "AVIF"])
def test_other_formats_are_refused_before_their_readers_see_them(format: str) -> None:
    with pytest.raises(ImageProblem, match="no PNG, JPEG, WEBP or GIF"):
        check_image(encoded(SMALL, format))


@pytest.mark.parametrize("content", [b"", b"GIF", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(ImageProblem, match="no PNG, JPEG, WEBP or GIF"):
        check_image(content)


SEEDS = [encoded(SMALL, format) for format in ("PNG", "JPEG", "WEBP")] + [
    encoded(_palette(), "GIF"),
    encoded(_half_transparent(), "WEBP"),
    encoded(SMALL, "JPEG", exif=Image.Exif()),
    _animation("PNG"),
]


@settings(max_examples=200)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6),
    st.integers(0, 2**16),
)
def test_damage_ends_in_an_image_or_in_a_problem_never_otherwise(
    seed: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(seed)
    for place, value in changes:
        content[place % len(content)] = value
    content = content[: max(cut % (2 * len(content)), 1)]
    with suppress(ImageProblem):
        decoded(checked(bytes(content)))


@pytest.mark.parametrize(
    "head", ["data:image/png;base64", "data:;base64", "DATA:text/plain;charset=x;BASE64"]
)
def test_the_content_decides_not_the_declared_type(head: str) -> None:
    content = encoded(SMALL, "JPEG")
    url = f"{head},{base64.b64encode(content).decode()}"
    assert check_image(decode_data_url(url)) == to_data_url(content, "image/jpeg")


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64",
        "data:image/png,AAAA",
        "data:image/png;base64;x,AAAA",
        "data:image/png;base64,AAA",
        "data:image/png;base64,AA==AA==",
        "data:image/png;base64,AAAA\n",
        "data:image/png;base64,AAAA AAAA",
        "data:image/png;base64,AA-_",
        "data:image/png;base64,%41AAA",
        "data:image/png;base64,ÄAAA",
        "data:image/png;base64,A=AA",
        "data:image/png;base64,AAA==",
        "data:image/png;base64,=",
    ],
)
def test_base64_is_strict(url: str) -> None:
    with pytest.raises(ImageProblem, match="base64"):
        decode_data_url(url)
