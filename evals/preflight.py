"""What is checked before anything is paid for or believed: that both sides are who they should be.

An adapter that is silently not applied, or a template that differs between the sides, gives scores
that look like any others.
"""

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from inspect_ai.event import ModelEvent
from inspect_ai.log import EvalSample, list_eval_logs, read_eval_log

from configs.artefact_paths import MERGED_FOLDER, base_gguf, variant_gguf
from configs.errors import UserError
from configs.schema import RunConfig
from evals.chat_templates import checkpoint_template, gguf_template
from evals.host_probe import HostProbe, is_loopback
from evals.targets import Target
from evals.task import Answer, EvaluationTask

TIMEOUT_S = 30.0


class Check(NamedTuple):
    """Something that was checked; ok: False where it is worth a warning, but stops nothing."""

    name: str
    ok: bool
    detail: str


def check_hosted(target: Target, *, timeout_s: float = TIMEOUT_S) -> list[Check]:
    """Ask the host for its models and for one short answer, which costs a few tokens.

    Errors: those of `HostProbe`, for a host that cannot be asked.
    """
    headers = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
    with httpx.Client(
        base_url=f"{target.base_url.rstrip('/')}/",
        headers=headers,
        timeout=timeout_s,
        # A proxy for the outside world must not stand before a host on this machine.
        mounts={"http://": None, "https://": None} if is_loopback(target.base_url) else None,
    ) as client:
        host = HostProbe(target, client)
        started = time.monotonic()
        body = host.complete()
        seconds = time.monotonic() - started
        return list(_describe_host(target, host.list_models(), body, seconds))


def _describe_host(
    target: Target, names: list[str] | None, body: dict[str, Any], seconds: float
) -> Iterator[Check]:
    yield Check("address", True, f"{target.base_url} answers, here in {seconds:.1f} s")
    yield Check("key", True, "accepted" if target.api_key else "none is needed")
    listed = "the host lists no models" if names is None else f"one of {len(names)} that it lists"
    if names is not None and target.model not in names:
        listed = "it answers, though the host does not list it"
    yield Check("model", True, f"{target.model}: {listed}")
    answering = body.get("model")
    if not isinstance(answering, str) or not answering:
        yield Check("answering model", False, "the host does not say which model has answered")
    elif _is_same_model(target.model, answering):
        yield Check("answering model", True, answering)
    else:
        yield Check(
            "answering model",
            False,
            f"{target.model} was asked for, and the host says that {answering} has answered",
        )


def _is_same_model(asked: str, answering: str) -> bool:
    """Equal, but for an owner in front and for what a host appends to an alias (a date)."""
    short, told = (name.rpartition("/")[2].casefold() for name in (asked, answering))
    return told == short or told.startswith((f"{short}-", f"{short}:", f"{short}@"))


def preflight_questions(task: EvaluationTask, count: int = 8) -> EvaluationTask:
    """The same task with `count` of its questions, spread over it, each asked once.

    They are asked without sampling, whose chance would make any two answers differ.
    """
    num_asked = min(count, len(task.questions))
    chosen = [task.questions[n * len(task.questions) // num_asked] for n in range(num_asked)]
    return dataclasses.replace(task, questions=tuple(chosen), num_epochs=1, temperature=0.0)


def check_adapter_acts(
    base_answers: Sequence[Answer], variant_answers: Sequence[Answer], target: Target
) -> Check:
    """See that the variant answers otherwise than its own base.

    Compared are the answers to what both were asked, by question and epoch. Errors: `UserError`
    where all are equal to the letter; AssertionError where nothing was asked of both.
    """
    base = {(answer.id, answer.epoch): answer.said for answer in base_answers}
    pairs = [
        (base[answer.id, answer.epoch], answer.said)
        for answer in variant_answers
        if (answer.id, answer.epoch) in base
    ]
    assert pairs, "the base and the variant were asked nothing in common"
    num_changed = sum(theirs != ours for theirs, ours in pairs)
    if num_changed == 0:
        raise UserError(
            "the served variant answers exactly as the base: the adapter is not acting "
            f"(all {len(pairs)} answers are equal)",
            where=f"{target.base_url}, model {target.model}",
            remedy="see that the address serves this run's merged artefact, and that training "
            "moved the adapter (its loss fell)",
        )
    return Check("adapter", True, f"{num_changed} of {len(pairs)} answers differ from the base's")


def check_same_text(baseline_logs: Path, variant_logs: Path, names: Sequence[str]) -> Check:
    """See in the logs that both sides were handed the same requests, but for the model's name.

    baseline_logs and variant_logs: log folders of the sides; names: of the inspect tasks that both
    were asked. Messages, tools, temperature and max_tokens are compared as inspect handed them to
    the sides' clients. Errors: `UserError` with the first difference, and where a side has no log.
    """
    num_compared = 0
    for name in names:
        theirs, ours = (_read_sent(folder, name) for folder in (baseline_logs, variant_logs))
        for key in theirs.keys() & ours.keys():
            if theirs[key] != ours[key]:
                raise UserError(
                    f"the sides were not asked the same: task {name}, question {key[0]}: "
                    f"{_first_difference(theirs[key], ours[key])}",
                    where=variant_logs,
                    remedy="remove both log folders and evaluate again",
                )
        num_compared += len(theirs.keys() & ours.keys())
        if theirs.keys() != ours.keys():
            raise UserError(
                f"task {name}: the sides were asked {len(theirs)} and {len(ours)} questions",
                where=variant_logs,
                remedy="evaluate again: what is missing is asked",
            )
    return Check(
        "same text", True, f"both sides got the same {num_compared:,} requests, by their logs"
    )


def _read_sent(folder: Path, name: str) -> dict[tuple[str, int], str]:
    """What was sent for each question and epoch, as JSON text, by the newest log of a task."""
    for info in list_eval_logs(str(folder), descending=True):
        if read_eval_log(info, header_only=True).eval.task == name:
            samples = read_eval_log(info, resolve_attachments=True).samples or []
            return {(str(one.id), one.epoch): _sent(one) for one in samples}
    raise UserError(
        f"there is no log of task {name}", where=folder, remedy="evaluate this side first"
    )


def _sent(sample: EvalSample) -> str:
    event = next((one for one in sample.events if isinstance(one, ModelEvent)), None)
    assert event is not None, f"the log of {sample.id} holds no request"
    messages = [
        message.model_dump(include={"role", "content", "tool_calls", "tool_call_id"})
        for message in event.input
    ]
    tools = [tool.model_dump() for tool in event.tools]
    settings = event.config.model_dump(include={"temperature", "max_tokens", "extra_body"})
    return json.dumps(
        {"messages": messages, "tools": tools, **settings}, indent=1, sort_keys=True, default=str
    )


def check_templates(run: Path, config: RunConfig) -> Check:
    """See that the variant is served with the chat template of its base.

    Compared are the templates inside the variant's GGUF, inside the base's where the run has made
    one, and in the merged checkpoint. Errors: `UserError` with the first line that differs.
    """
    templates = dict(_find_templates(run, config))
    served = f"the variant's {config.merge.served} GGUF"
    ours = templates.pop(served)
    for name, theirs in templates.items():
        if theirs != ours:
            raise UserError(
                f"the chat template of {served} is not that of {name}: "
                f"{_first_difference(theirs, ours)}",
                where=variant_gguf(run, config),
                remedy="run `tunery merge` again with the base that was trained on; the sides "
                "would see different prompts",
            )
    if not templates:
        return Check("templates", False, f"there is nothing to compare that of {served} with")
    if not ours:
        return Check("templates", True, "no file holds one: the engine's own serves both sides")
    return Check("templates", True, f"{served} has that of {' and of '.join(templates)}")


def _find_templates(run: Path, config: RunConfig) -> Iterator[tuple[str, str]]:
    """Templates by the name of what holds them; empty for a file without one."""
    yield f"the variant's {config.merge.served} GGUF", gguf_template(variant_gguf(run, config))
    base = base_gguf(run, config)
    if base.is_file():
        yield "the base's GGUF", gguf_template(base)
    merged = run / MERGED_FOLDER
    if merged.is_dir():
        yield "the merged checkpoint", checkpoint_template(merged)


def _first_difference(theirs: str, ours: str) -> str:
    """The first line that differs, of both."""
    left, right = theirs.splitlines(), ours.splitlines()
    for number in range(max(len(left), len(right))):
        pair = [repr(one[number]) if number < len(one) else "nothing" for one in (left, right)]
        if pair[0] != pair[1]:
            return f"line {number + 1} is {pair[1][:200]} instead of {pair[0][:200]}"
    return "only the ends of lines differ"
