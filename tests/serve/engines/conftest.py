"""The tiny Mistral3 as a GGUF, and its vision tower's."""

from pathlib import Path

import pytest

from tests.train.artefacts.conftest import mistral3_gguf as mistral3_gguf
from tests.train.artefacts.conftest import mistral3_with_tokenizer as mistral3_with_tokenizer
from train.artefacts.mmproj import make_mmproj


@pytest.fixture(scope="session")
def mistral3_mmproj(
    mistral3_with_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    file = tmp_path_factory.mktemp("mmproj") / "tiny.mmproj.gguf"
    make_mmproj(mistral3_with_tokenizer, file)
    return file
