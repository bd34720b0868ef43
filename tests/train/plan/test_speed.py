from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from configs.load import load_config
from configs.schema import TrainConfig
from tests.train.plan.measured_peak import SMALL, Case, build_inputs, build_shape, loss_of
from train.adapter import build_model
from train.plan.architecture import read_architecture
from train.plan.config_source import find_architecture, read_json
from train.plan.speed import CARDS, count_operations, count_weight_bytes, estimate_speed
from train.plan.step import Batch, Step

ROOT = Path(__file__).parents[3]
MISTRAL = find_architecture(load_config(ROOT / "configs" / "legal.yaml").model).architecture


def step_of(num_tokens: int = 4096, **train: object) -> Step:
    settings = TrainConfig.model_validate({"num_steps": 1, "gradient_checkpointing": True} | train)
    return Step(MISTRAL, settings, Batch(num_tokens, 1, 1), "cuda")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_those_that_torch_counts(checkpointing: bool, tmp_path: Path) -> None:
    # A bf16 base, since torch knows no 4-bit products. Short documents make attention small, which
    # torch counts in full and this module as causal.
    train = {"quantization": "none", "gradient_checkpointing": checkpointing, "batch_rows": 1}
    case = Case("", SMALL, train, num_documents=32, num_supervised=1)
    checkpoint = build_shape(tmp_path, SMALL)
    model = build_model(case.config, checkpoint).train()
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    inputs, labelled = build_inputs(case)
    with FlopCounterMode(display=False) as counter:
        loss_of(model, inputs, labelled).backward()
    architecture = read_architecture(read_json(checkpoint / "config.json"), where="config.json")
    step = Step(architecture, case.config, Batch(1024, 1, 32), "cpu")
    assert count_operations(step) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_mistral_small_takes_133_gigaflop_a_token_with_recomputation() -> None:
    step = step_of(lora={"rank": 1})
    assert count_operations(step) / 4096 / 1e9 == pytest.approx(133.4, rel=0.005)


def test_the_ceiling_is_the_cards_rate_over_the_operations_less_what_the_weights_move() -> None:
    rtx_4090 = CARDS[0]
    many = estimate_speed(step_of(262_144), rtx_4090)
    assert many.ceiling == pytest.approx(1240, rel=0.02)
    assert many.estimate == pytest.approx(many.ceiling / 2)
    few = estimate_speed(step_of(2048), rtx_4090)
    assert few.ceiling < 0.9 * many.ceiling


def test_few_tokens_are_multiplied_without_dequantizing() -> None:
    assert count_weight_bytes(step_of(1536)) < count_weight_bytes(step_of(1537)) / 8


def test_small_tiles_move_the_weights_of_the_mlp_again_for_each() -> None:
    whole = count_weight_bytes(step_of(16_384))
    tiled = count_weight_bytes(step_of(16_384, mlp_tile_tokens=2048))
    mlp_share = 3 * 5120 * 32_768 * 40 / MISTRAL.num_linear_weights
    assert tiled / whole == pytest.approx(1 - mlp_share + 8 * mlp_share)


def test_a_slow_bus_bounds_what_is_offloaded() -> None:
    slow = CARDS[0]._replace(pcie=0.1)
    step = step_of(offload_activations=True)
    moved = 2 * 40 * 5120 * 2 * 4096
    assert estimate_speed(step, slow).estimate == pytest.approx(4096 / (moved / 0.1e9))
    assert estimate_speed(step, CARDS[0]) == estimate_speed(step_of(), CARDS[0])
