"""What it takes to repeat an evaluation: names, versions, seeds, hashes, the configuration."""

import hashlib
import importlib.metadata
import io
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from ruamel.yaml import YAML

from configs.schema import RunConfig
from evals.evidence import TaskEvidence
from evals.prompts import build_prompt, prompt_sha256
from evals.results import ComparisonResult

LIBRARIES = ("tunery", "inspect-ai", "openai", "scipy", "statsmodels", "numpy")


def details_of_run(
    result: ComparisonResult,
    config: RunConfig,
    evidence: Sequence[TaskEvidence],
    further: Mapping[str, str],
) -> dict[str, str]:
    """Names and values in the order in which they are shown; `further` after who was asked."""
    settings = config.evaluation
    own = result["tasks"][0]
    sides = dict.fromkeys(
        (task["baseline"]["name"], task["baseline"]["model"]) for task in result["tasks"]
    )
    return {
        "Variant": f"{own['variant']['name']}, asked as {own['variant']['model']}",
        "Compared with": "; ".join(f"{name}, asked as {model}" for name, model in sides),
        "Base model": f"{config.model.name}, licence {config.model.licence}",
        **further,
        "Written": datetime.now(UTC).strftime("%Y-%m-%d"),
        "Seed": f"{settings.seed} (choice of examples, permutations)",
        "Permutations": f"{settings.num_resamples:,}",
        **({"SHA-256 of all prompts": prompts_sha256(evidence)} if evidence else {}),
        "Versions": ", ".join([f"Python {platform.python_version()}", *library_versions()]),
    }


def prompts_sha256(evidence: Sequence[TaskEvidence]) -> str:
    """One hash over everything that is sent, of all tasks, with and without worked examples."""
    every = hashlib.sha256()
    for one in evidence:
        for examples in ((), one.task.examples):
            for question in one.task.questions:
                messages = build_prompt(question, examples)
                every.update(prompt_sha256(messages, question.tools).encode())
    return every.hexdigest()


def library_versions() -> list[str]:
    """Of those that ask and that compute."""
    return [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]


def configuration(config: RunConfig) -> str:
    """The complete configuration as YAML; of keys it holds only the variables' names."""
    buffer = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 100
    yaml.dump(config.model_dump(mode="json"), buffer)
    return buffer.getvalue()
