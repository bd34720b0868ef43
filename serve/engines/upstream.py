"""A model behind another OpenAI-compatible host, the hosted service among them."""

import logging
import time
from contextlib import aclosing
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from configs.errors import UserError
from serve.engine import Completion, EngineModel, EngineUnavailable, Events, Overloaded
from serve.engines.wire_body import Dialect, build_body
from serve.engines.wire_client import WireClient
from serve.engines.wire_errors import KEY_FAULTS

logger = logging.getLogger(__name__)

MISTRAL_HOSTS = ("mistral.ai",)


class UpstreamEngine:
    """Asks a host, always for a stream, so that first words and cancellation go through.

    base_url: in front of `/chat/completions`; model: its name there; api_key: sent as a bearer's;
    max_requests: sent there at the same time; context_length: in tokens, None where unknown;
    silence_s: seconds without a sign after which a request is given up; dialect: by default as
    the host's name tells. `HTTPS_PROXY` and its like are followed.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str | None = None,
        max_requests: int = 64,
        context_length: int | None = None,
        silence_s: float = 300.0,
        takes_images: bool = True,
        dialect: Dialect | None = None,
    ) -> None:
        self._base_url = base_url
        self._api_key = api_key
        self._silence_s = silence_s
        self._dialect = dialect or guess_dialect(base_url)
        self._models = (
            EngineModel(name=model, context_length=context_length, takes_images=takes_images),
        )
        self._capacity = max_requests
        self._client: WireClient | None = None
        self._avoid_until = 0.0

    @property
    def models(self) -> tuple[EngineModel, ...]:
        """The one model, as it was configured."""
        return self._models

    @property
    def capacity(self) -> int:
        """As configured: the host's own limits are its secret."""
        return self._capacity

    @property
    def ready(self) -> bool:
        """False for a few seconds after the host was out of reach, then true for the next try."""
        return self._client is not None and time.monotonic() >= self._avoid_until

    async def start(self) -> None:
        """Look whether the host knows the key. Raises `UserError` where it does not.

        A host that is out of reach is no error: it may be back for the first request.
        """
        if self._client is not None:
            return
        client = WireClient(
            self._base_url,
            key=self._api_key,
            silence_s=self._silence_s,
            proxy=find_proxy(self._base_url),
        )
        self._client = client
        status = await client.status("/models")
        if status in KEY_FAULTS:
            await self.close()
            raise UserError(
                f"the host refuses the key (status {status})"
                if self._api_key
                else f"the host wants a key (status {status})",
                where=self._base_url,
                remedy="put a valid key into the environment variable that "
                "serve.hosted.api_key_env names",
            )
        if status is None:
            logger.warning("%s is out of reach; requests are still sent there", self._base_url)

    async def complete(self, request: Completion) -> Events:
        """See `Engine.complete`; there is no `Usage` where the host tells none."""
        if self._client is None:
            raise EngineUnavailable("the engine has been closed")
        body = build_body(request, dialect=self._dialect)
        try:
            async with aclosing(
                self._client.answer(body, num_choices=request.num_choices)
            ) as events:
                async for event in events:
                    self._avoid_until = 0.0
                    yield event
        except Overloaded:
            raise  # it is there, and says so
        except EngineUnavailable as error:
            self._avoid_until = time.monotonic() + error.retry_after_s
            raise

    async def close(self) -> None:
        """End what runs and close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def guess_dialect(base_url: str) -> Dialect:
    """Mistral's own hosts are strict about fields; all others take OpenAI's."""
    host = urlsplit(base_url).hostname or ""
    mistral = any(host == one or host.endswith(f".{one}") for one in MISTRAL_HOSTS)
    return "mistral" if mistral else "openai"


def find_proxy(url: str) -> str | None:
    """The proxy that the environment names for an address."""
    parts = urlsplit(url)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
