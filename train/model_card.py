"""The model card: what the variant is, out of what it was made, how good it is, how to use it.

In the form of the Hugging Face hub, so that it can be published beside the weights as it is. It
says what the run's files say, and holds no path of the machine that it was made on.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from configs.data_schema import HubDataSource, MixtureSource, PresetSource, SingleSource
from configs.errors import UserError
from configs.run_directory import (
    STAGES,
    RunDirectory,
    StageName,
    StageRecord,
    sha256_of_read,
    write_whole,
)
from configs.schema import RunConfig
from data.presets import find_preset
from train.report.notes import format_seconds

TEMPLATE = Path(__file__).parent / "model_card.md.jinja"
CARD_FILE = "README.md"
# Licences that the hub knows by the lower-case form of their SPDX id.
HUB_LICENCES = {
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "mpl-2.0",
    "unlicense",
    "gemma",
    "llama3.1",
    "llama3.2",
    "llama3.3",
}
# The hub's words for metrics that it knows.
HUB_METRICS = {
    "normalized_match": "exact_match",
    "choice": "accuracy",
    "macro_f1": "f1",
    "token_f1": "f1",
    "rouge_l": "rouge",
}
VERSIONS = ("tunery", "torch", "transformers", "trl", "peft", "bitsandbytes")


class TrainedSource(NamedTuple):
    """A source of training rows; hub_id: its repository, where it was read from the hub."""

    label: str
    hub_id: str | None
    revision: str | None
    licence: str
    attribution: str
    num_rows: Mapping[str, int]


def write_card(run: RunDirectory) -> Path:
    """Write the card of a trained run into its directory, with the scores if it is evaluated."""
    run.finished("train")
    stages = current_stages(run.read_manifest())
    if "train" not in stages:
        raise UserError(
            "the rows were prepared anew since the training: the card would tell of others",
            where=run.path,
            remedy=f"run `tunery train {run.path.name}`",
        )
    comparison = run.path / "evals" / "comparison.json"
    text = render_card(
        run.load_config(),
        stages,
        data=_read_json(run.path / "data" / "facts.json"),
        comparison=_read_json(comparison) if "evaluate" in stages else None,
    )
    write_whole(run.path / CARD_FILE, text)
    return run.path / CARD_FILE


def current_stages(
    stages: Mapping[StageName, StageRecord],
) -> dict[StageName, StageRecord]:
    """The stages that are done, and with the outputs that stand there now.

    After another training the records of the merge and the evaluation before it are still there.
    """
    current: dict[StageName, StageRecord] = {}
    for name in STAGES:
        record = stages.get(name, StageRecord())
        inputs: Mapping[StageName, str] = record.get("inputs", {}).get("after", {})
        if record.get("state") == "done" and all(
            one in current and sha256_of_read(name, one, current[one]) == sha256
            for one, sha256 in inputs.items()
        ):
            current[name] = record
    return current


def render_card(
    config: RunConfig,
    stages: Mapping[StageName, StageRecord],
    *,
    data: Mapping[str, Any],
    comparison: Mapping[str, Any] | None = None,
) -> str:
    """The card of a run whose stage train is done; the same inputs give the same text.

    stages: the records of the stages that are current; data: `data/facts.json`; comparison:
    `evals/comparison.json`, None before the evaluation.
    """
    sources = list(trained_sources(config, data))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        # Markdown, not HTML: the filter `text` keeps texts of others from acting as markup.
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "text": inline_text,
        "count": "{:,}".format,
        "percent": _percent,
        "points": _points,
        "duration": format_seconds,
        "gigabytes": _gigabytes,
    }
    train = stages["train"]
    merge: Mapping[str, Any] = stages.get("merge", {}).get("facts", {})
    has_vision = any(
        name.endswith("ForConditionalGeneration") for name in merge.get("architectures", [])
    )
    return environment.get_template(TEMPLATE.name).render(
        header=card_header(config, sources, comparison).to_yaml(),
        config=config,
        sources=sources,
        data=data,
        train=train,
        facts=train["facts"],
        merge=merge,
        is_merged="bf16" in [one["format"] for one in merge.get("artefacts", [])],
        comparison=comparison,
        base_id=config.model.hub_id,
        model_class="AutoModelForImageTextToText" if has_vision else "AutoModelForCausalLM",
        versions={name: train["versions"][name] for name in VERSIONS if name in train["versions"]},
    )


def card_header(
    config: RunConfig, sources: Sequence[TrainedSource], comparison: Mapping[str, Any] | None
) -> ModelCardData:
    """What the hub reads of the card."""
    licence = _slug(config.model.licence)
    is_known = licence in HUB_LICENCES
    method = "sft" if config.train.method == "supervised" else "dpo"
    hub_ids = [one.hub_id for one in sources if one.hub_id]
    return ModelCardData(
        license=licence if is_known else "other",
        license_name=None if is_known else licence,
        base_model=config.model.hub_id or config.model.name,
        datasets=list(dict.fromkeys(hub_ids)) or None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["tunery", "lora", *(["qlora"] if config.train.quantization == "nf4" else []), method],
        model_name=config.name,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=hub_ids[0] if len(hub_ids) == 1 else _slug(task["name"]),
                dataset_name=task["name"],
                dataset_split="test",
                metric_type=HUB_METRICS.get(task["metric"], task["metric"]),
                metric_value=task["variant"]["score"],
            )
            for task in comparison["tasks"]
            if task["role"] != "guard"
        ]
        if comparison
        else None,
    )


def trained_sources(config: RunConfig, data: Mapping[str, Any]) -> Iterator[TrainedSource]:
    """The configured sources with what the prepare stage has found of each."""
    own = [one for one in data["sources"] if not one["is_evaluation_task"]]
    for source, found in zip(_single_sources(config), own, strict=True):
        revision = found["revision"] or None
        yield TrainedSource(
            # A data set in a folder is labelled with its path.
            label=PurePath(found["label"]).name if found["label"][:1] in "/.~" else found["label"],
            hub_id=_hub_id(source) if revision else None,
            revision=revision,
            licence=found["licence"] or "not stated",
            attribution=found["attribution"],
            num_rows=found["num_rows"],
        )


def inline_text(text: object) -> str:
    """A text of others as one line of Markdown: no tags, table edges, links or code."""
    folded = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", folded.replace("&", "&amp;").replace("<", "&lt;"))


def _single_sources(config: RunConfig) -> list[SingleSource]:
    source = config.data.source
    return [part.source for part in source.parts] if isinstance(source, MixtureSource) else [source]


def _hub_id(source: SingleSource) -> str | None:
    match source:
        case HubDataSource():
            return source.id
        case PresetSource():
            return find_preset(source).source.id
        case _:
            return None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def _read_json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
