import json
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.models.mistral3 import modeling_mistral3

from configs.errors import UserError
from tests.tiny_mistral3 import build_tiny_mistral3
from train.quantization import check_quantized, model_class, nf4_recipe
from train.quantized_base import load_base

TEXT = torch.arange(20, 60)[None]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def mistral3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_mistral3(tmp_path_factory.mktemp("mistral3") / "tiny")


def make_ready(checkpoint: Path, folder: Path, **told: object) -> Path:
    """A 4-bit checkpoint as its maker would have saved it with transformers."""
    recipe = nf4_recipe().to_dict() | told
    model = model_class(checkpoint).from_pretrained(
        checkpoint,
        dtype=torch.bfloat16,
        device_map={"": "cpu"},
        quantization_config=BitsAndBytesConfig.from_dict(recipe),
    )
    model.save_pretrained(folder)
    return folder


def quantized_layers(model: PreTrainedModel) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]


def test_nf4_base_is_really_4_bit_with_double_quantization(tiny_checkpoint: Path) -> None:
    model = load_base(tiny_checkpoint, quantization="nf4")
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    assert len(linears) == 2 * 7
    for module in linears.values():
        assert isinstance(module, Linear4bit)
        assert isinstance(module.weight, Params4bit)
        assert module.weight.quant_type == "nf4"
        assert module.weight.quant_state.nested
        assert module.weight.dtype == torch.uint8
        assert module.weight.numel() == module.in_features * module.out_features // 2


@pytest.mark.parametrize("with_images", [False, True])
def test_everything_else_stays_bf16_and_is_frozen(with_images: bool, mistral3: Path) -> None:
    model = load_base(mistral3, quantization="nf4", with_images=with_images)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.uint8, torch.bfloat16}


def test_without_quantization_the_base_is_bf16(tiny_checkpoint: Path) -> None:
    model = load_base(tiny_checkpoint, quantization="none")
    assert not quantized_layers(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_layer_left_unquantized_is_noticed(tiny_checkpoint: Path) -> None:
    model = load_base(tiny_checkpoint, quantization="nf4")
    model.model.layers[1].mlp.down_proj = torch.nn.Linear(128, 64)
    with pytest.raises(AssertionError, match=r"model\.layers\.1\.mlp\.down_proj is Linear"):
        check_quantized(model)


@pytest.mark.parametrize("is_ready", [False, True])
def test_gradients_through_the_base_are_the_same_after_a_validation(
    is_ready: bool, mistral3: Path, tmp_path: Path
) -> None:
    checkpoint = make_ready(mistral3, tmp_path / "ready") if is_ready else mistral3
    model = load_base(checkpoint, quantization="nf4")

    def gradient() -> torch.Tensor:
        model.train()
        embedding = model.get_input_embeddings()
        assert isinstance(embedding, torch.nn.Embedding)
        vectors = embedding(TEXT).detach().requires_grad_(True)
        model(inputs_embeds=vectors).logits.float().square().mean().backward()
        assert isinstance(vectors.grad, torch.Tensor)
        return vectors.grad

    before = gradient()
    model.eval()
    with torch.no_grad():
        model(TEXT)
    assert torch.equal(gradient(), before)


def test_text_needs_neither_vision_tower_nor_projector(mistral3: Path) -> None:
    whole = load_base(mistral3, quantization="nf4", with_images=True)
    model = load_base(mistral3, quantization="nf4")
    assert type(model) is modeling_mistral3.Mistral3ForConditionalGeneration
    left = {name for name, _ in model.named_parameters()}
    gone = {name for name, _ in whole.named_parameters()} - left
    assert all(name.startswith(("model.language_model.", "lm_head.")) for name in left)
    assert any(name.startswith("model.vision_tower.") for name in gone)
    assert any(name.startswith("model.multi_modal_projector.") for name in gone)
    assert torch.equal(model(TEXT).logits, whole(TEXT).logits)


def test_a_model_without_its_tower_takes_what_training_asks_of_it(mistral3: Path) -> None:
    model = load_base(mistral3, quantization="nf4")
    model.set_attn_implementation("eager")
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.train()
    model(TEXT, labels=TEXT).loss.backward()
    model.to("cpu")  # type: ignore[arg-type]
    assert model.num_parameters() > 0


def test_with_images_the_tower_stays_unquantized_and_sees(mistral3: Path) -> None:
    model = load_base(mistral3, quantization="nf4", with_images=True)
    names = quantized_layers(model)
    assert len(names) == 2 * 7
    assert all(name.startswith("model.language_model.") for name in names)
    # Two patches a side after merging: four image tokens (id 10) for an image of 56 x 56.
    ids = torch.tensor([[20, 10, 10, 10, 10, 21]])
    images = torch.rand(1, 3, 56, 56, dtype=torch.bfloat16)
    sizes = torch.tensor([[56, 56]])
    seen = model(ids, pixel_values=images, image_sizes=sizes).logits
    other = model(ids, pixel_values=1 - images, image_sizes=sizes).logits
    assert not torch.equal(seen, other)


def test_the_head_that_the_release_does_not_call_untied_is_its_own(mistral3: Path) -> None:
    assert "tie_word_embeddings" not in json.loads((mistral3 / "config.json").read_text())
    model = load_base(mistral3, quantization="nf4")
    head = model.lm_head.weight.clone()
    assert not torch.equal(head, model.model.language_model.embed_tokens.weight)
    model.tie_weights()
    assert torch.equal(model.lm_head.weight, head)


def test_a_tied_head_stays_tied(tiny_checkpoint: Path) -> None:
    model = load_base(tiny_checkpoint, quantization="nf4")
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_ready_4_bit_checkpoint_is_the_one_made_here(mistral3: Path, tmp_path: Path) -> None:
    ready = load_base(make_ready(mistral3, tmp_path / "ready"), quantization="nf4")
    assert len(quantized_layers(ready)) == 2 * 7
    own = load_base(mistral3, quantization="nf4")
    assert torch.equal(ready(TEXT).logits, own(TEXT).logits)


def test_a_ready_checkpoint_computes_in_bf16_whatever_its_maker_chose(
    mistral3: Path, tmp_path: Path
) -> None:
    ready = make_ready(mistral3, tmp_path / "ready", bnb_4bit_compute_dtype="float32")
    model = load_base(ready, quantization="nf4")
    assert torch.equal(model(TEXT).logits, load_base(mistral3, quantization="nf4")(TEXT).logits)


def test_a_ready_checkpoint_may_leave_some_layers_in_bf16(mistral3: Path, tmp_path: Path) -> None:
    told = [*nf4_recipe().to_dict()["llm_int8_skip_modules"], "model.language_model.layers.0"]
    ready = make_ready(mistral3, tmp_path / "ready", llm_int8_skip_modules=told)
    names = quantized_layers(load_base(ready, quantization="nf4"))
    assert len(names) == 7
    assert all(name.startswith("model.language_model.layers.1.") for name in names)


@pytest.mark.parametrize(
    ("skipped", "named"),
    [
        (["lm_head"], r"model\.vision_tower\..* quantized"),
        (["model.vision_tower", "model.multi_modal_projector"], "lm_head quantized"),
        (["model", "lm_head"], "none of its layers is"),
    ],
)
def test_a_ready_checkpoint_that_was_quantized_carelessly_is_refused(
    skipped: list[str], named: str, mistral3: Path, tmp_path: Path
) -> None:
    ready = make_ready(mistral3, tmp_path / "ready", llm_int8_skip_modules=skipped)
    with pytest.raises(UserError, match=named):
        load_base(ready, quantization="nf4")


def test_bf16_is_not_made_of_4_bits(mistral3: Path, tmp_path: Path) -> None:
    ready = make_ready(mistral3, tmp_path / "ready")
    with pytest.raises(UserError, match="quantization: none asks for bf16"):
        load_base(ready, quantization="none")
