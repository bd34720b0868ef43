"""What the tests of the data stage share."""

import datasets
import pytest


@pytest.fixture
def own_datasets_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_dataset` writes locks, which do not belong into the user's own cache."""
    folder = tmp_path_factory.mktemp("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))
