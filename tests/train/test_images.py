import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.protocol.instruct.chunk import ImageChunk
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
from peft import PeftModel, get_peft_model
from PIL import Image
from transformers import PreTrainedModel

from configs.errors import UserError
from configs.schema import LoraConfig
from data.tokens.mistral_images import IMG, IMG_BREAK, IMG_END, ImageForm, open_image
from tests.tiny_mistral3 import build_tiny_mistral3
from train import documents
from train.batches import FlatCollator
from train.frozen_vision import freeze_vision
from train.images import ImageReader, image_pixels
from train.lora import build_lora
from train.quantized_base import load_base
from train.rows import Rows

FORM = ImageForm()
COLOURS = {"red": 50, "green": 51, "blue": 52, "yellow": 53, "black": 54, "white": 55}
BOS, EOS, INST, END_INST, QUESTION = 1, 2, 3, 4, 60


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_mistral3(tmp_path_factory.mktemp("mistral3") / "checkpoint")


@pytest.fixture(scope="module")
def reader(checkpoint: Path) -> ImageReader:
    return ImageReader(checkpoint)


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> PreTrainedModel:
    base = load_base(checkpoint, quantization="none", with_images=True)
    freeze_vision(base)
    return base


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth shapes and noise, so that scaling has something to get wrong."""
    generator = np.random.default_rng(width * 10_000 + height)
    y, x = np.mgrid[0:height, 0:width]
    channels = [127 + 120 * np.sin(x / 17 + y / 31), 127 + 120 * np.cos(x / 7), (x + y) % 256]
    pixels = np.stack(channels, axis=-1) + generator.normal(0, 8, (height, width, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if mode == "RGBA":
        image.putalpha(image.getchannel("R"))
    return image.convert(mode)


def image_url(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "TIFF" if image.mode == "CMYK" else "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def messages(*images: Image.Image, answer: str = "a") -> str:
    """The turns of a row that shows images, as the prepare stage writes them."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": "Which colour?"}]
    parts += [{"type": "image_url", "image_url": {"url": image_url(one)}} for one in images]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    return orjson.dumps(turns).decode()


# Pixels.


@pytest.mark.parametrize(
    ("size", "mode"),
    [
        ((28, 28), "RGB"),
        ((29, 28), "RGB"),
        ((5, 3), "RGB"),
        ((640, 480), "RGB"),
        ((4000, 60), "RGB"),
        ((2000, 1500), "RGB"),
        ((100, 75), "RGBA"),
        ((100, 75), "L"),
        ((100, 75), "P"),
        ((100, 75), "CMYK"),
        ((100, 75), "1"),
    ],
)
def test_the_pixels_are_those_of_mistral_common(size: tuple[int, int], mode: str) -> None:
    pytest.importorskip("cv2", reason="mistral-common scales with opencv-python-headless")
    encoder = ImageEncoder(
        ImageConfig(FORM.patch_size, FORM.longest_edge, FORM.merge_size),
        SpecialImageIDs(IMG, IMG_BREAK, IMG_END),
    )
    image = noise(*size, mode)
    expected = encoder(ImageChunk(image=image)).image
    found = image_pixels(open_image(image_url(image)), FORM).numpy()
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("size", [(28, 28), (500, 3), (3000, 2000)])
def test_one_colour_stays_that_colour_at_any_size(size: tuple[int, int]) -> None:
    pixels = image_pixels(Image.new("RGB", size, (255, 0, 51)), FORM)
    expected = [
        (value - mean) / std
        for value, mean, std in zip((1.0, 0.0, 0.2), FORM.mean, FORM.std, strict=True)
    ]
    assert torch.allclose(
        pixels, torch.tensor(expected)[:, None, None].expand_as(pixels), atol=1e-4
    )


def test_rows_without_images_give_nothing(reader: ImageReader) -> None:
    assert reader.read([]) == {}
    assert reader.read([messages()]) == {}


def test_images_come_in_order_padded_to_the_largest(reader: ImageReader) -> None:
    images = [noise(28, 28), noise(56, 28), noise(30, 56)]
    read = reader.read([messages(*images[:2]), messages(images[2])])
    assert read["image_sizes"].tolist() == [[28, 28], [28, 56], [56, 56]]
    assert read["pixel_values"].shape == (3, 3, 56, 56)
    for image, padded, (height, width) in zip(
        images, read["pixel_values"], read["image_sizes"].tolist(), strict=True
    ):
        assert torch.equal(padded[:, :height, :width], image_pixels(image, reader.form))
        assert not padded[:, height:].any()
        assert not padded[:, :, width:].any()


def test_a_model_without_a_vision_tower_reads_no_images(tiny_checkpoint: Path) -> None:
    with pytest.raises(UserError, match="the model takes none"):
        ImageReader(tiny_checkpoint)


@settings(max_examples=30)
@given(sizes=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=3))
def test_there_are_as_many_features_as_image_tokens(
    reader: ImageReader, base: PreTrainedModel, sizes: list[tuple[int, int]]
) -> None:
    images = [Image.new("RGB", size) for size in sizes]
    read = reader.read([messages(*images)])
    with torch.no_grad():
        features = base.model.get_image_features(**read).pooler_output
    num_tokens = [reader.form.token_ids(image).count(IMG) for image in images]
    assert [len(of_image) for of_image in features] == num_tokens


# Training.


def colour_rows(form: ImageForm, colours: Sequence[str], shown: Sequence[str]) -> Rows:
    """Rows that show one colour each, in many sizes, and answer with `colours`."""
    ids: list[list[int]] = []
    images: dict[int, str] = {}
    for number, (answered, colour) in enumerate(zip(colours, shown, strict=True)):
        image = Image.new("RGB", (10 + 7 * number % 60, 56 - 5 * number % 40), colour)
        images[number] = messages(image, answer=answered)
        prompt = [BOS, INST, *form.token_ids(image), QUESTION, END_INST]
        ids.append([*prompt, COLOURS[answered], EOS])
    flat = np.concatenate(ids).astype(np.int32)
    return Rows(
        file=Path("rows.parquet"),
        input_ids=flat,
        assistant_mask=np.concatenate([[0] * (len(row) - 2) + [1, 1] for row in ids]).astype("i1"),
        offsets=np.cumsum([0, *map(len, ids)]),
        images=images,
    )


def build_model(checkpoint: Path) -> PeftModel:
    torch.manual_seed(0)
    base = load_base(checkpoint, quantization="nf4", with_images=True)
    base.get_decoder().set_attn_implementation(documents.NAME)
    freeze_vision(base)
    # A random head says everything about alike, and what is frozen cannot learn to say more.
    base.get_output_embeddings().weight.data.mul_(40)
    return get_peft_model(base, build_lora(LoraConfig(rank=8, alpha=16), base))


def loss_of(model: PeftModel, rows: Rows, reader: ImageReader) -> torch.Tensor:
    collate = FlatCollator(rows, reader.read)
    batch = collate([{"rows": [number]} for number in range(len(rows))])
    loss: torch.Tensor = model(**batch, use_cache=False).loss
    return loss


def test_a_model_learns_to_name_the_colour_that_it_is_shown(
    checkpoint: Path, reader: ImageReader
) -> None:
    model = build_model(checkpoint)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all(".language_model." in name for name in trained)
    colours = list(COLOURS) * 2
    rows = colour_rows(reader.form, colours, shown=colours)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(50):
        loss = loss_of(model, rows, reader)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 5
    assert losses[-1] < 0.1
    # Shown another colour, it names that one, which is then wrong.
    others = colours[1:] + colours[:1]
    with torch.no_grad():
        assert loss_of(model, colour_rows(reader.form, colours, others), reader).item() > 2
    after = dict(model.named_parameters())
    assert any("vision_tower" in name for name in frozen)
    assert all(torch.equal(parameter, after[name]) for name, parameter in frozen.items())


def test_each_row_of_a_batch_sees_its_own_images(checkpoint: Path, reader: ImageReader) -> None:
    model = build_model(checkpoint).eval()
    rows = colour_rows(reader.form, ["red", "green", "blue"], ["blue", "red", "white"])
    collate = FlatCollator(rows, reader.read)

    def logits(*sequences: list[int]) -> torch.Tensor:
        batches = [collate([{"rows": [number]} for number in numbers]) for numbers in sequences]
        with torch.no_grad():
            return torch.cat([model(**batch).logits[0] for batch in batches])

    together, alone = logits([2, 0, 1]), logits([2], [0], [1])
    scale = float(alone.abs().max())
    assert torch.allclose(together, alone, atol=0.02 * scale)
    # The rows are told apart by their images: the same answers behind others' images differ.
    rows.images.update({0: rows.images[1], 1: rows.images[0]})  # type: ignore[attr-defined]
    assert not torch.allclose(logits([2], [0], [1]), alone, atol=0.1 * scale)
