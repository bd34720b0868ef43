"""Who is asked: a model behind an OpenAI-compatible address, or the recording of one."""

from dataclasses import dataclass, field
from pathlib import Path

from inspect_ai.model import Model, get_model

from evals.chat_api import PROVIDER
from evals.recorded_model import recorded_model


@dataclass(frozen=True)
class Target:
    """A model behind `base_url`/chat/completions.

    name: how reports call it; model: the name that the request carries; api_key: None where the
    host asks for none; revision: what stands behind the name just now (an artefact's hash), so that
    answers of an earlier artefact under the same name are never taken for its own; where it is
    empty, the address stands for it; requests_per_minute: the host's limit, kept from this side,
    retries included; recording: answers come from this file and the address is not asked.
    """

    name: str
    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    revision: str = ""
    requests_per_minute: float | None = None
    recording: Path | None = None


def build_model(target: Target, *, max_retries: int) -> Model:
    """inspect's model for `target`, a client of its own, configured without the environment.

    max_retries: requests sent again after 408, 409, 429, 5xx, a lost connection or a timeout, after
    the wait that `evals.waiting.retry_wait_s` tells.
    """
    if target.recording is not None:
        return recorded_model(target.recording, name=target.model)
    return get_model(
        f"{PROVIDER}/{target.model}",
        base_url=target.base_url,
        # The client refuses an empty key; hosts without keys ignore what they are sent.
        api_key=target.api_key or "no-key",
        memoize=False,
        max_retries=max_retries,
        requests_per_minute=target.requests_per_minute,
    )
