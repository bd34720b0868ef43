"""Whether a host can be asked: reached, let in, and answering with the model that was meant.

Each way of failing has its own words, because "it does not work" costs an hour where "the key is
not accepted" costs a minute.
"""

import difflib
import errno
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from configs.errors import UserError
from evals.targets import Target

MAX_WAITS = 3
MAX_WAIT_S = 20.0
"""Longer than this a busy host is not waited for here."""
MAX_SAID_CHARACTERS = 200
QUOTA_WORDS = ("insufficient_quota", "insufficient_credits", "billing", "credit", "quota")
QUESTION = {"role": "user", "content": "Answer with the word yes."}
MAX_TOKENS = 8


class HostProbe:
    """Asks the host, and turns what goes wrong into words.

    Every `UserError` says which of these it is: no such name, connection refused, no answer in
    time, TLS, the key, the model's name, the path, the account's credit, too many requests, or the
    host's own fault. None tells the key.
    """

    def __init__(self, target: Target, client: httpx.Client) -> None:
        self._target = target
        self._client = client

    def complete(self) -> dict[str, Any]:
        """The host's answer to one short question."""
        body = {
            "model": self._target.model,
            "messages": [QUESTION],
            "max_tokens": MAX_TOKENS,
            "temperature": 0.0,
        }
        response = self._request("POST", "chat/completions", body)
        for _ in range(MAX_WAITS):
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS or _is_quota(response):
                break
            time.sleep(min(_retry_after_s(response), MAX_WAIT_S))
            response = self._request("POST", "chat/completions", body)
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response)
        answer = _json(response)
        if not answer.get("choices"):
            raise self._error(
                "the address answers, but not with a completion", self._base_url_remedy()
            )
        return answer

    def list_models(self) -> list[str] | None:
        """The names that the host lists; None where it has no list."""
        try:
            response = self._client.get("models")
        except httpx.HTTPError:
            return None
        listed = _json(response).get("data") if response.status_code == httpx.codes.OK else None
        if not isinstance(listed, list):
            return None
        return [one["id"] for one in listed if isinstance(one, dict) and "id" in one]

    def _request(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body)
        except httpx.InvalidURL as error:
            raise self._error(f"the address is none: {error}", self._base_url_remedy()) from error
        except httpx.HTTPError as error:
            what, remedy = _tell_connection_fault(error, self._target.base_url)
            raise self._error(what, remedy) from error

    def _refusal(self, response: httpx.Response) -> UserError:
        status, said = response.status_code, self._said(response)
        if status in (401, 403):
            what = "refuses the key" if self._target.api_key else "wants a key"
            return self._error(
                f"the host {what} (status {status}){said}",
                "put a valid key into the environment variable that api_key_env names",
            )
        if status == 402 or _is_quota(response):
            return self._error(
                f"the key is good, but the account behind it has no credit (status {status}){said}",
                "top the account up at the host, or raise its limit",
            )
        if status == 429:
            return self._error(
                f"the key is good, but the host has too many requests of it just now{said}",
                "wait a little, or set requests_per_minute and max_connections lower",
            )
        if status in (404, 400, 422, 405) and (fault := self._model_fault(response, said)):
            return fault
        if response.is_redirect:
            return self._error(
                f"the host sends us on to {response.headers.get('location')}",
                "put the address that it names into base_url",
            )
        if status >= 500:
            return self._error(f"the host fails (status {status}){said}", "try again later")
        return self._error(f"the host refuses the request (status {status}){said}", None)

    def _model_fault(self, response: httpx.Response, said: str) -> UserError | None:
        """A wrong model or a wrong path; None where the request was refused for something else."""
        model, names = self._target.model, self.list_models()
        # What it says counts, because hosts refuse an unknown model with 400 or 422 as well.
        is_named, is_spoken_of = (word in said.casefold() for word in (model.casefold(), "model"))
        is_404 = response.status_code == 404
        if names is not None and model not in names and (is_404 or is_spoken_of):
            near = difflib.get_close_matches(model, names, n=5)
            told = f"; near it: {', '.join(near)}" if near else ""
            return self._error(
                f"the host has no model {model} among its {len(names)}{told}{said}",
                "set evaluation.baseline.model to one that the host has",
            )
        if names is None and (is_named or (is_404 and is_spoken_of)):
            return self._error(
                f"the host does not know the model {model}{said}",
                "set evaluation.baseline.model to one that the host has",
            )
        if response.status_code in (404, 405):
            return self._error(
                f"there is nothing that completes at this address (status "
                f"{response.status_code}){said}",
                self._base_url_remedy(),
            )
        return None

    def _said(self, response: httpx.Response) -> str:
        """The host's own words, with a colon before them."""
        body = _json(response)
        error = body.get("error", body)
        told = error if isinstance(error, str) else ""
        if isinstance(error, dict):
            texts = (error.get(name) for name in ("message", "detail", "title"))
            told = next((text for text in texts if isinstance(text, str) and text), "")
        if self._target.api_key:
            told = told.replace(self._target.api_key, "[key]")
        return f": {told[:MAX_SAID_CHARACTERS]}" if told else ""

    def _base_url_remedy(self) -> str:
        return (
            "set base_url to the address in front of /chat/completions, which most often ends in "
            "/v1"
        )

    def _error(self, what: str, remedy: str | None) -> UserError:
        where = f"{self._target.base_url}, model {self._target.model}"
        return UserError(f"{self._target.name}: {what}", where=where, remedy=remedy)


def _tell_connection_fault(error: httpx.HTTPError, base_url: str) -> tuple[str, str]:
    """What went wrong before there was any answer, and what to do."""
    host = urlsplit(base_url).hostname or base_url
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"the host's certificate is not trusted: {cause.verify_message}",
                "see that the address is right; for a company's own authority, set SSL_CERT_FILE "
                "to a file with its certificate",
            )
        if isinstance(cause, ssl.SSLError):
            return (
                f"no TLS with the host: {cause.reason or cause}",
                "see whether the address is https and its port right",
            )
        if isinstance(cause, socket.gaierror):
            return (
                f"the name {host} is not known (no DNS answer: {cause.strerror})",
                "see that the address is spelt right and that this machine has a network; behind "
                "a proxy, set HTTPS_PROXY",
            )
        if isinstance(cause, ConnectionRefusedError) or _errno(cause) == errno.ECONNREFUSED:
            return (
                "the machine is there, but nothing listens at this port (connection refused)",
                "see that the server runs and that the port is right",
            )
    if isinstance(error, httpx.ConnectTimeout):
        return (
            "the machine does not answer (no connection in time)",
            "see that this machine has a network and that no firewall is between; behind a proxy, "
            "set HTTPS_PROXY",
        )
    if isinstance(error, httpx.TimeoutException):
        return (
            "the host has taken the request, but does not answer in time",
            "try again later: hosts load a model that was not asked for in a while",
        )
    if isinstance(error, httpx.ProxyError):
        return f"the proxy refuses: {error}", "see HTTPS_PROXY and NO_PROXY"
    told = next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)
    return f"no connection: {told}", "see that this machine has a network"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _errno(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _is_quota(response: httpx.Response) -> bool:
    if response.status_code not in (402, 403, 429):
        return False
    text = response.text.casefold()
    return any(word in text for word in QUOTA_WORDS)


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "1")))
    except ValueError:
        return 1.0


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
