"""Ids of tool calls as Mistral's models know them: nine letters and digits."""

import hashlib
import re
from collections.abc import Sequence
from itertools import count

from data.conversation import Message

CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
ID_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def mistral_call_ids(messages: Sequence[Message]) -> dict[str, str]:
    """Each id of the calls and replies of a row, and the one of nine letters that stands for it.

    An id that Mistral takes stays; another is hashed, and again where the hash is taken.
    """
    ids = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    ids += [message.get("tool_call_id", "") for message in messages if message["role"] == "tool"]
    mapped = {id: id for id in ids if CALL_ID.fullmatch(id)}
    for id in ids:
        if id not in mapped:
            hashed = (_hashed_id(f"{attempt}:{id}") for attempt in count())
            mapped[id] = next(one for one in hashed if one not in mapped.values())
    return mapped


def _hashed_id(text: str) -> str:
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    return "".join(ID_DIGITS[byte % len(ID_DIGITS)] for byte in digest[:9])
