"""The adapter in its variants: how it begins, what trains it, and how it is saved as plain LoRA."""

import copy
import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import bitsandbytes
import torch
from peft import (
    EvaConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    initialize_lora_eva_weights,
)
from peft import LoraConfig as PeftLoraConfig
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from transformers import PreTrainedModel

from configs.errors import UserError
from configs.schema import LoraConfig, TrainConfig
from train.batches import IGNORED

Batch = dict[str, Any]
# Modules outside the language model that have linear layers of the same names.
VISION_MODULES = r".*(vision_tower|multi_modal_projector).*"
INITS: dict[str, Any] = {
    "default": True,
    "eva": "eva",
    # 16 rounds of the randomized decomposition; a whole one of a 5120 x 32768 layer takes minutes.
    "pissa": "pissa_niter_16",
}
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw_torch": torch.optim.AdamW,
    "adamw_8bit": bitsandbytes.optim.AdamW8bit,
    "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
}
# Positions of a batch that EVA decomposes; 1024 of a layer of width 32768 take 128 MiB.
MAX_EVA_POSITIONS = 1024
# Positions by which peft tells layers with the same input; it holds them as Python numbers.
COMPARED_POSITIONS = 4
MAX_EVA_PASSES = 200
# Where the model keeps its first adapter until it is saved (PiSSA).
INITIAL = "pissa_initial"


def build_adapter(
    base: PreTrainedModel, config: TrainConfig, *, activations: Iterable[Batch] | None = None
) -> PeftModel:
    """A fresh adapter on every linear layer of the frozen `base`'s language model.

    Its first weights are fixed by `config.seed`. activations: model inputs with labels, whose
    supervised positions EVA decomposes; unused otherwise. PiSSA changes the base's weights in
    memory. Errors: `UserError` for too few activations.
    """
    lora = config.lora
    torch.manual_seed(config.seed)
    with warnings.catch_warnings():
        # Room for a larger batch, at the price of weights that are not there yet.
        warnings.filterwarnings("ignore", message="lora with eva initialization used with")
        model = get_peft_model(base, build_lora(lora, base))
    assert isinstance(model, PeftModel)
    if lora.init == "eva":
        assert activations is not None, "EVA needs activations"
        initialize_by_activations(model, list(activations), rank=lora.rank)
    if lora.init == "pissa":
        # In fp32 and on the host: what the base lacks since is exactly their product.
        tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
        vars(model)[INITIAL] = {name: t.float().cpu().clone() for name, t in tensors.items()}
    keep_adapter_dtype(model, lora.dtype)
    return model


def build_lora(config: LoraConfig, model: PreTrainedModel) -> PeftLoraConfig:
    """peft's configuration of the adapter: every linear layer of the language model."""
    has_vision = any("vision_tower" in name for name, _ in model.named_modules())
    return PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        use_dora=config.dora,
        init_lora_weights=INITS[config.init],
        # rho 1: every layer keeps its rank, so that memory is what it was planned to be.
        eva_config=EvaConfig(rho=1.0) if config.init == "eva" else None,
        target_modules="all-linear",
        exclude_modules=VISION_MODULES if has_vision else None,
        bias="none",
        task_type="CAUSAL_LM",
    )


def keep_adapter_dtype(model: PeftModel, dtype: Literal["bfloat16", "float32"]) -> None:
    """Put the adapter's trained weights into `dtype`; DoRA's magnitudes stay in fp32.

    peft makes them fp32, TRL casts those of a 4-bit model to bf16 whatever was asked for. A step of
    the magnitudes can be smaller than bf16 tells apart (trl#7268).
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_magnitude = "lora_magnitude_vector" in name
            parameter.data = parameter.data.to(torch.float32 if is_magnitude else DTYPES[dtype])


def initialize_by_activations(model: PeftModel, batches: list[Batch], *, rank: int) -> None:
    """Set each A to the principal directions of its layer's inputs (EVA, arXiv 2410.07170).

    Errors: `UserError` where no batch has as many supervised positions as the rank, and where the
    directions do not settle.
    """
    usable = [batch for batch in batches if len(_positions(batch)) >= rank]
    if not usable:
        raise UserError(
            f"lora.init: eva needs batches of at least {rank} supervised tokens (lora.rank)",
            where="train.lora",
            remedy="raise train.micro_batch_rows, or set train.lora.init: default",
        )
    passes = iter(range(MAX_EVA_PASSES))

    def forward(model: PeftModel, batch: Batch) -> Any:  # noqa: ANN401
        if next(passes, None) is None:
            raise UserError(
                f"lora.init: eva found no directions that last, in {MAX_EVA_PASSES} passes",
                where="train.lora",
                remedy="lower train.lora.rank, or set train.lora.init: default",
            )
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        # Without the head, which has no adapter.
        headless = model.get_base_model().base_model
        assert isinstance(headless, torch.nn.Module)
        return headless(**inputs, use_cache=False)

    # The first pass compares, those after it decompose.
    limits = chain([COMPARED_POSITIONS], repeat(MAX_EVA_POSITIONS))

    def positions(batch: Batch, _: PeftLoraConfig) -> torch.Tensor:
        return _positions(batch, limit=next(limits))

    with warnings.catch_warnings():
        # Numbers among the inputs have no device.
        warnings.filterwarnings("ignore", message="input of type .* could not be moved")
        initialize_lora_eva_weights(
            model,
            usable,
            forward_fn=forward,
            prepare_model_inputs_fn=positions,
            show_progress_bar=False,
        )


def build_optimizer(model: PeftModel, config: TrainConfig) -> torch.optim.Optimizer | None:
    """The optimizer that gives B another learning rate than A (LoRA+, arXiv 2402.12354).

    None where the trainer's own does. To be called when a resumed adapter has been loaded.
    """
    if config.lora.plus_ratio is None:
        return None
    optimizer: torch.optim.Optimizer = create_loraplus_optimizer(
        model,
        OPTIMIZERS[config.optimizer],
        lr=config.learning_rate,
        loraplus_lr_ratio=config.lora.plus_ratio,
        loraplus_weight_decay=config.weight_decay,
    )
    return optimizer


def save_adapter(model: PeftModel, folder: Path, *, base_name: str) -> None:
    """Write the adapter as peft's plain LoRA on the original base, whatever it began as.

    base_name: what the configuration calls the base, which has no place on this machine in it. A
    PiSSA adapter comes out with twice its rank, in fp32: the learned factors and, subtracted, the
    first ones.
    """
    with _saved_config(model), TemporaryDirectory() as scratch:
        options: dict[str, Any] = {}
        initial = vars(model).get(INITIAL)
        if initial is not None:
            path = Path(scratch) / INITIAL
            path.mkdir()
            save_file(initial, path / "adapter_model.safetensors")
            options["path_initial_model_for_weight_conversion"] = str(path)
        model.save_pretrained(str(folder), save_embedding_layers=False, **options)
    file = folder / "adapter_config.json"
    told = json.loads(file.read_text())
    told["base_model_name_or_path"] = base_name
    told["target_modules"] = _layer_names(model)
    if "vision_config" in model.config.sub_configs:
        # The tower may be absent here and there where the adapter is loaded.
        told["exclude_modules"] = VISION_MODULES
    file.write_text(json.dumps(told, indent=2, sort_keys=True))
    # peft's card holds nothing but blanks and places on this machine.
    (folder / "README.md").unlink(missing_ok=True)


@contextmanager
def _saved_config(model: PeftModel) -> Iterator[None]:
    """Have peft save a configuration that says how to load the adapter, not how it began."""
    config = model.peft_config["default"]
    saved = copy.deepcopy(config)
    assert isinstance(saved, PeftLoraConfig)
    # Empty, and not the name: peft would ask the hub for it.
    saved.base_model_name_or_path = ""
    saved.init_lora_weights = True
    saved.eva_config = None
    model.peft_config["default"] = saved
    try:
        yield
    finally:
        model.peft_config["default"] = config


def _layer_names(model: PeftModel) -> list[str]:
    """What the adapted layers are called in every block; peft may name those it left out too."""
    return sorted({name.rpartition(".")[2] for name in model.targeted_module_names})


def _positions(batch: Batch, *, limit: int | None = None) -> torch.Tensor:
    """Where the batch has a label: (number of positions, 2), row and column; at most `limit`."""
    mask: torch.Tensor = batch["labels"] != IGNORED
    if "attention_mask" in batch:
        mask = mask & batch["attention_mask"].bool()
    found = mask.nonzero()
    step = 1 if limit is None else -(-len(found) // limit)
    return found[::step]
