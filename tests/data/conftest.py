"""What the tests of the data stage share."""

from pathlib import Path

import datasets
import pytest

from tests.data.preparing import PrepareRows


@pytest.fixture
def own_datasets_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_dataset` writes locks, which do not belong into the user's own cache."""
    folder = tmp_path_factory.mktemp("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))


@pytest.fixture
def run_prepare(tmp_path: Path, tiny_checkpoint: Path) -> PrepareRows:
    """Prepares rows that a test gives, in a folder of its own."""
    return PrepareRows(tmp_path, tiny_checkpoint)
