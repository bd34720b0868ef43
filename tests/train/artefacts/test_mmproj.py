import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from configs.errors import UserError
from data.conversation import Message
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.mistral_images import IMG_BREAK, load_image_form
from data.tokens.mistral_v7 import MistralV7Renderer
from serve.llama_process import open_llama
from tests.conversations import row
from tests.full_disk import limited_file_size
from tests.tiny_mistral3 import build_tiny_mistral3
from tests.train.merging.adapters import load_model
from train.artefacts.gguf_header import read_header
from train.artefacts.mmproj import make_mmproj, mmproj_disk_bytes

# Whole tokens of 28 pixels, and more than eight of them: llama.cpp resizes other images.
WIDTH, HEIGHT = 112, 84
NUM_TOP = 20


@pytest.fixture(scope="module")
def mmproj(mistral3_with_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("mmproj") / "tiny.mmproj.gguf"
    make_mmproj(mistral3_with_tokenizer, file)
    return file


@pytest.fixture(scope="module")
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A Mistral3 without a tokenizer, which a test may change."""
    return build_tiny_mistral3(tmp_path / "checkpoint")


def question(image: Image.Image) -> Message:
    file = io.BytesIO()
    image.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {
        "role": "user",
        "content": [
            # In the order of training, which llama.cpp does not put them in by itself.
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": "What is it?"},
        ],
    }


def expected_log_probs(checkpoint: Path, ids: list[int], image: Image.Image) -> torch.Tensor:
    """transformers' own, of the first token of the answer."""
    form = load_image_form(checkpoint)
    assert form is not None
    scaled = (np.asarray(image) / 255 - np.array(form.mean)) / np.array(form.std)
    pixels = torch.tensor(scaled, dtype=torch.float32).permute(2, 0, 1)[None]
    sizes = torch.tensor([[HEIGHT, WIDTH]])
    with torch.no_grad():
        told = load_model(checkpoint)(
            input_ids=torch.tensor([ids]), pixel_values=pixels, image_sizes=sizes
        )
    return torch.log_softmax(told.logits[0, -1].float(), dim=-1)


def test_llama_cpp_sees_images_as_transformers_does(
    mistral3_with_tokenizer: Path, mistral3_gguf: Path, mmproj: Path, image: Image.Image
) -> None:
    asked = question(image)
    renderer = MistralV7Renderer(load_tokenizer(mistral3_with_tokenizer))
    (rendered,) = renderer.render([row(asked, {"role": "assistant", "content": "x"})])
    ids = rendered.input_ids[: rendered.assistant_mask.index(1)]
    assert ids.count(IMG_BREAK) == HEIGHT // 28 - 1
    body = {"messages": [asked], "max_tokens": 1, "temperature": 0, "logprobs": True}
    with open_llama(mistral3_gguf, num_threads=1, context_length=512, mmproj=mmproj) as llama:
        told = llama.http.post(
            "/v1/chat/completions", json=body | {"top_logprobs": NUM_TOP}, timeout=60
        ).json()
    assert told["usage"]["prompt_tokens"] == len(ids)
    found = told["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    expected = expected_log_probs(mistral3_with_tokenizer, ids, image)
    assert difference(found, expected) < 1e-3
    # What a wrong picture, or a row's end that is another token's, would have given.
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert difference(found, expected_log_probs(mistral3_with_tokenizer, ids, mirrored)) > 0.02
    unbroken = [3 if id == IMG_BREAK else id for id in ids]
    assert difference(found, expected_log_probs(mistral3_with_tokenizer, unbroken, image)) > 0.02


def difference(found: list[dict[str, Any]], expected: torch.Tensor) -> float:
    differences = [abs(float(one["logprob"]) - float(expected[one["id"]])) for one in found]
    return max(differences)


def test_the_size_that_is_told_is_enough(mistral3_with_tokenizer: Path, mmproj: Path) -> None:
    assert 0 <= mmproj_disk_bytes(mistral3_with_tokenizer) - mmproj.stat().st_size < 2**21


def test_what_the_file_says_of_images(mistral3_with_tokenizer: Path, mmproj: Path) -> None:
    fields = read_header(mmproj).fields
    assert fields["clip.projector_type"].value == "pixtral"
    assert fields["clip.vision.spatial_merge_size"].value == 2
    assert fields["clip.vision.image_size"].value == 224


def test_without_a_preprocessor_it_is_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"no preprocessor_config\.json"):
        make_mmproj(copied, tmp_path / "x.gguf")


def test_a_model_without_a_vision_tower_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not made for models of type llama"):
        make_mmproj(tiny_checkpoint, tmp_path / "x.gguf")


def test_a_tensor_that_is_left_out_is_noticed(
    mistral3_with_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the converter itself does with the checkpoint as it is.
    monkeypatch.setattr("train.artefacts.mmproj._write_break", link_index)
    with pytest.raises(UserError, match=r"left v\.token_embd\.img_break out"):
        make_mmproj(mistral3_with_tokenizer, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("num_bytes", [300_000, 375_000])
def test_a_full_disk_is_told_and_leaves_nothing(
    num_bytes: int, mistral3_with_tokenizer: Path, tmp_path: Path
) -> None:
    with limited_file_size(num_bytes), pytest.raises(UserError) as caught:
        make_mmproj(mistral3_with_tokenizer, tmp_path / "x.gguf")
    # Where the last bytes alone are missing, the converter itself ends well.
    assert "disk space" in str(caught.value.remedy)
    assert not list(tmp_path.iterdir())


def link_index(checkpoint: Path, view: Path) -> None:
    name = "model.safetensors.index.json"
    (view / name).symlink_to(checkpoint / name)
