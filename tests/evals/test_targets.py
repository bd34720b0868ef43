from pathlib import Path

import pytest

from configs.errors import UserError
from evals.targets import Target, build_model


def test_a_key_shows_in_no_text_of_the_target() -> None:
    target = Target("hosted", "https://host/v1", "big", api_key="sk-secret")
    assert "sk-secret" not in f"{target} {target!r} {[target]}"
    assert "big" in repr(target)


def test_the_model_uses_the_targets_address_and_key_and_no_environment() -> None:
    target = Target("hosted", "https://host/v1", "org/big", api_key="sk-secret")
    model = build_model(target, max_retries=3)
    assert str(model) == "tunery/org/big"
    assert (model.api.base_url, model.api.api_key) == ("https://host/v1", "sk-secret")
    assert build_model(target, max_retries=3) is not model


def test_a_host_without_keys_gets_a_placeholder() -> None:
    model = build_model(Target("own", "http://127.0.0.1:1/v1", "mine"), max_retries=0)
    assert model.api.api_key == "no-key"


def test_a_recording_is_opened_and_no_address(tmp_path: Path) -> None:
    target = Target("hosted", "https://host/v1", "big", recording=tmp_path / "missing.jsonl")
    with pytest.raises(UserError) as caught:
        build_model(target, max_retries=0)
    assert str(tmp_path / "missing.jsonl") in str(caught.value)
