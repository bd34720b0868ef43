"""A random model under Mistral's own template that calls tools whenever it may."""

from pathlib import Path

from tests.serve.tiny_llama import build_tiny_gguf
from train.artefacts.served_form import MISTRAL_V7_TEMPLATE

SPECIALS = (
    *("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
# In ids, llama.cpp's grammar lets numbers and false escapes through, which its reader does not
# take; bytes beyond ASCII would make characters that do not end.
NEVER = dict.fromkeys([*"0123456789-\\", *(chr(code) for code in range(0xA1, 0x144))], -20.0)
CALLING = {"[TOOL_CALLS]": 3.0, '"': 3.0, "}": 2.0, "]": 2.0}
"""Calls soon, and ends its strings soon."""


def build_tool_gguf(folder: Path, preferred: dict[str, float] = CALLING) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return build_tiny_gguf(
        folder,
        chat_template=MISTRAL_V7_TEMPLATE.read_text(encoding="utf-8"),
        further_specials=SPECIALS,
        preferred=NEVER | preferred,
    )
