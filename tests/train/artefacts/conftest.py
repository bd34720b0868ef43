import json
from pathlib import Path

import pytest

from tests.tiny_mistral3 import build_tiny_mistral3
from train.artefacts.gguf import make_gguf
from train.artefacts.served_form import MISTRAL_V7_TEMPLATE

IMAGE_PIXELS = 224


@pytest.fixture(scope="session")
def mistral3_with_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mistral3 that takes images of more than the eight tokens that llama.cpp asks for."""
    folder = tmp_path_factory.mktemp("whole") / "mistral3"
    build_tiny_mistral3(folder, with_tokenizer=True)
    for name, part, size in (
        ("config.json", "vision_config", "image_size"),
        ("preprocessor_config.json", "size", "longest_edge"),
    ):
        config = json.loads((folder / name).read_text())
        config[part][size] = IMAGE_PIXELS
        (folder / name).write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def mistral3_gguf(mistral3_with_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its language model in F16, with the project's own template."""
    file = tmp_path_factory.mktemp("gguf") / "mistral3.f16.gguf"
    template = MISTRAL_V7_TEMPLATE.read_text(encoding="utf-8")
    make_gguf(
        mistral3_with_tokenizer, file, number_format="f16", name="tiny", chat_template=template
    )
    return file
