"""Fixtures for the whole suite, which reaches no network and says the same at every run."""

import os
from pathlib import Path

import hypothesis
import pytest

# The hub's client reads this when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
# Two threads over tiny tensors mostly wait for each other, on a busy machine for a long time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine makes examples slow, which says nothing about the code.
hypothesis.settings.register_profile("tunery", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("tunery")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random chat model; read-only by agreement: copy it to change it."""
    # Here and not above: tests of the configuration need not wait for torch.
    from tests.tiny_model import build_tiny_checkpoint

    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def mistral_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a full-size v7-tekken tokenizer without weights; read-only by agreement."""
    from tests.mistral_tokenizer import build_mistral_checkpoint

    return build_mistral_checkpoint(tmp_path_factory.mktemp("mistral") / "checkpoint")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
