import pytest
from pydantic import ValidationError

from configs.schema import TrainConfig


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
