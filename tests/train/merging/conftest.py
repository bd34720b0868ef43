from pathlib import Path

import pytest

from tests.train.merging.adapters import write_adapter


@pytest.fixture
def adapter(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return write_adapter(tiny_checkpoint, tmp_path / "adapter")
