"""Settings of a server that lack what they need are refused before anything starts."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.serve_schema import HostedConfig, RouteConfig, ServeConfig
from serve.settings import ServedVariant, ServerSettings

MERGED = {"name": "a", "artefact": "a.gguf"}
ADAPTED = {"name": "b", "adapter": "b.lora.gguf"}
BASE = {"base": "base.gguf", "base_name": "base"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"variants": []}, "at least 1 item"),
        ({"variants": [MERGED], "base": "base.gguf"}, "base and base_name go together"),
        ({"variants": [MERGED], "base_name": "base"}, "base and base_name go together"),
        ({"variants": [ADAPTED, ADAPTED], **BASE}, "variants: two have the same name"),
        (
            {"variants": [ADAPTED, ADAPTED | {"name": "c"}]},
            "several variants share a base: say which in base",
        ),
        ({"variants": [ADAPTED, MERGED], **BASE}, "variants: a has no adapter to load on the base"),
        ({"variants": [ADAPTED], **BASE}, "variants: b has no artefact to serve"),
        ({"variants": [MERGED], "bases": "base.gguf"}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_lacking_is_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ServerSettings.model_validate(fields)


def test_one_alone_is_merged_and_several_share() -> None:
    assert not ServerSettings.model_validate({"variants": [MERGED]}).is_shared
    several = {"variants": [ADAPTED, MERGED | {"adapter": "a.lora.gguf"}], **BASE}
    assert ServerSettings.model_validate(several).is_shared


def test_the_file_that_a_server_reads_says_the_same() -> None:
    settings = ServerSettings(
        variants=[
            ServedVariant(name=name, artefact=Path(f"{name}.gguf"), adapter=Path(f"{name}.lora"))
            for name in ("a", "b")
        ],
        base_name="owner/base",
        base=Path("base.gguf"),
        mmproj=Path("mmproj.gguf"),
        serve=ServeConfig(
            routes={"other": RouteConfig(to="hosted", split={"base": 2.5})},
            hosted=HostedConfig(base_url="https://example.org/v1", model="m"),
            api_keys_path=Path("keys.json"),
        ),
        folder=Path("serve"),
    )
    assert ServerSettings.model_validate_json(settings.model_dump_json()) == settings
