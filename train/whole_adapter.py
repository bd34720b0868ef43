"""The adapter as a whole, wherever its shares lie: what is saved of it and what is put into it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import set_peft_model_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor

from data.cache import new_folder
from train.lora import save_adapter
from train.processes import is_first, wait_for_all


def write_adapter(model: PeftModel, folder: Path, *, base_name: str) -> None:
    """Write the adapter, whole or not at all; to be called by every process that trains.

    Returns when it is there; the first process writes it. base_name: see `save_adapter`.
    """
    gather_shares(model)
    if is_first():
        with new_folder(folder) as partial:
            save_adapter(model, partial, base_name=base_name)
    wait_for_all()


def frozen_bytes(model: PeftModel) -> int:
    """What this process holds of the weights that are not trained."""
    frozen = (p for p in model.parameters() if not p.requires_grad)
    here = [p.to_local() if isinstance(p, DTensor) else p for p in frozen]
    # Tied weights are one, under two names.
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in here}.values())


def gather_shares(model: PeftModel) -> None:
    """Put every trained parameter that lies in shares together, in every process: after training.

    What is left behind is the plain adapter, which peft saves as it saves any other.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.requires_grad and isinstance(parameter, DTensor):
                whole = torch.nn.Parameter(parameter.full_tensor().detach())
                module.register_parameter(name, whole)


def whole_tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """The trained parameters by name, on the host, whole in every process: while they train."""
    return {
        name: (p.full_tensor() if isinstance(p, DTensor) else p).detach().cpu()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def put_adapter(model: PeftModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put saved tensors, by peft's names, into the adapter, in shares where it lies in shares."""
    shares = {name: p for name, p in model.named_parameters() if isinstance(p, DTensor)}
    if not shares:
        set_peft_model_state_dict(model, dict(tensors))
        return
    for name, parameter in shares.items():
        saved = tensors.get(name.replace(".default.", "."))
        if parameter.requires_grad and saved is not None:
            saved = saved.to(device=parameter.device, dtype=parameter.dtype)
            shared = distribute_tensor(saved, parameter.device_mesh, parameter.placements)
            with torch.no_grad():
                parameter.copy_(shared)
