"""Who is asked: a model behind an OpenAI-compatible address, served here or hosted elsewhere."""

from dataclasses import dataclass, field

from inspect_ai.model import Model, get_model

# Names the service in inspect's logs; the address and the key are given, never looked up by it.
SERVICE = "tunery"
REQUEST_SECONDS = 600.0


@dataclass(frozen=True)
class Target:
    """A model behind `base_url`/chat/completions.

    name: how reports call it; model: the name that the request carries; api_key: None where the
    host asks for none; revision: what stands behind the name just now (an artefact's hash), so that
    answers of an earlier artefact under the same name are never taken for its own.
    """

    name: str
    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    revision: str = ""


def build_model(target: Target, *, max_retries: int) -> Model:
    """inspect's model for `target`, a client of its own, configured without the environment.

    max_retries: requests sent again after 429, 5xx or a lost connection; the client waits as long
    as `Retry-After` says, else 0.5 to 8 seconds.
    """
    return get_model(
        f"openai-api/{SERVICE}/{target.model}",
        base_url=target.base_url,
        # The client refuses an empty key; hosts without keys ignore what they are sent.
        api_key=target.api_key or "no-key",
        memoize=False,
        client_timeout=REQUEST_SECONDS,
        max_retries=max_retries,
    )
