from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments

from configs.errors import UserError
from configs.schema import LoraConfig, TrainConfig
from tests.tiny_mistral3 import build_tiny_mistral3
from train.host_embedding import HostEmbedding, check_untied, offload_input_embedding
from train.lora import build_adapter
from train.quantized_base import load_base

IDS = torch.arange(3, 35)[None]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def mistral3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_mistral3(tmp_path_factory.mktemp("mistral3") / "tiny")


def offloaded(checkpoint: Path) -> PreTrainedModel:
    """As on a CUDA device, though without one."""
    model = load_base(checkpoint, quantization="nf4")
    offload_input_embedding(model)
    return model


def test_vectors_are_those_of_the_embedding() -> None:
    embedding = torch.nn.Embedding(10, 4, padding_idx=3)
    ids = torch.tensor([[1, 3, 9], [0, 1, 2]])
    assert torch.equal(HostEmbedding(embedding)(ids), embedding(ids))


def test_the_model_answers_the_same(mistral3: Path) -> None:
    wanted = load_base(mistral3, quantization="nf4")(IDS).logits
    assert torch.equal(offloaded(mistral3)(IDS).logits, wanted)


def test_nothing_that_moves_the_model_moves_the_table(mistral3: Path) -> None:
    model = load_base(mistral3, quantization="none")
    offload_input_embedding(model)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, HostEmbedding)
    model.to("meta")  # type: ignore[arg-type]
    model.half()
    assert embedding.weight.device.type == "cpu"
    assert embedding.weight.dtype == torch.bfloat16
    # The device of a model is that of its first parameter, which the embedding would have been.
    assert model.device.type == "meta"


@pytest.mark.gpu
def test_vectors_come_to_the_card_and_the_table_does_not(mistral3: Path) -> None:
    model = load_base(mistral3, quantization="nf4", offload_embedding=True)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, HostEmbedding)
    vectors = embedding(IDS.cuda())
    assert vectors.device.type == "cuda"
    assert torch.equal(vectors.cpu()[0], embedding.weight[IDS[0]])
    wanted = load_base(mistral3, quantization="nf4")(IDS.cuda()).logits
    assert torch.equal(model(IDS.cuda()).logits, wanted)


def test_a_tied_embedding_cannot_be_offloaded(tmp_path: Path) -> None:
    tied = build_tiny_mistral3(tmp_path / "tied", tied=True)
    with pytest.raises(UserError, match="head is its input embedding"):
        load_base(tied, quantization="nf4", offload_embedding=True)


def test_equal_numbers_in_two_tensors_are_not_tied(mistral3: Path) -> None:
    model = load_base(mistral3, quantization="none")
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    model.lm_head.weight.data = embedding.weight.data.clone()
    check_untied(model)


def test_without_a_card_the_setting_is_said_to_have_no_effect(
    mistral3: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = load_base(mistral3, quantization="nf4", offload_embedding=True)
    assert not isinstance(model.get_input_embeddings(), HostEmbedding)
    assert "train.offload_embedding has no effect" in caplog.text


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_that_of_a_model_with_its_embedding_in_place(
    checkpointing: bool, mistral3: Path, tmp_path: Path
) -> None:
    adapters: list[dict[str, torch.nn.Parameter]] = []
    for build in (offloaded, lambda checkpoint: load_base(checkpoint, quantization="nf4")):
        config = TrainConfig(num_steps=2, lora=LoraConfig(rank=4, alpha=8))
        model = build_adapter(build(mistral3), config)
        arguments = TrainingArguments(
            output_dir=str(tmp_path / str(len(adapters))),
            max_steps=2,
            per_device_train_batch_size=1,
            learning_rate=1e-2,
            gradient_checkpointing=checkpointing,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            dataloader_pin_memory=False,
        )
        rows = [{"input_ids": IDS[0] + n, "labels": IDS[0] + n} for n in range(2)]
        Trainer(model=model, args=arguments, train_dataset=rows).train()
        adapters.append({n: p for n, p in model.named_parameters() if p.requires_grad})
        model.save_pretrained(str(tmp_path / f"adapter-{len(adapters)}"))
    for name, tensor in adapters[0].items():
        assert torch.equal(tensor, adapters[1][name]), name
    learned = [tensor for name, tensor in adapters[0].items() if "lora_B" in name]
    assert len(learned) == 2 * 7
    assert all(tensor.abs().max() > 0 for tensor in learned)
    saved = [tmp_path / f"adapter-{n}" / "adapter_model.safetensors" for n in (1, 2)]
    assert saved[0].read_bytes() == saved[1].read_bytes()


def test_gradients_reach_the_first_layer_through_checkpointed_ones(mistral3: Path) -> None:
    model = offloaded(mistral3)
    model.enable_input_require_grads()
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, HostEmbedding)
    vectors = embedding(IDS)
    assert vectors.requires_grad
    assert vectors.is_leaf
