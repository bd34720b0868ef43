import pytest
from pydantic import ValidationError

from configs.schema import MergeConfig, TrainConfig


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"offload_activations": True}, "gradient_checkpointing: true"),
        ({"mlp_tile_tokens": 64, "lora": {"dropout": 0.1}}, "lora.dropout: 0"),
        ({"lora": {"init": "pissa"}}, "quantization: none"),
        ({"quantization": "none", "lora": {"init": "pissa", "dora": True}}, "lora.dora: false"),
        ({"method": "preference", "packing": True}, "packing: false"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_with_both_names(
    settings: dict[str, object], needed: str
) -> None:
    with pytest.raises(ValidationError, match=needed):
        TrainConfig.model_validate({"num_steps": 1} | settings)


@pytest.mark.parametrize(
    ("artefacts", "problem"),
    [
        (["bf16", "w4a16"], "needs a GGUF"),
        (["q8_0", "bf16", "q8_0"], "more than once"),
        ([], "at least 1 item"),
        (["q3_k"], "q4_k_m"),
    ],
)
def test_artefacts_that_cannot_be_served_are_refused(artefacts: list[str], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        MergeConfig.model_validate({"artefacts": artefacts})


def test_the_first_gguf_is_served() -> None:
    artefacts = ["bf16", "w4a16", "q5_k_m", "q8_0"]
    assert MergeConfig.model_validate({"artefacts": artefacts}).served == "q5_k_m"
