"""Answers that stand in a Markdown code block, as chat models like to give them."""

import re

FENCED = re.compile(r"\A(`{3,}|~{3,})[^\n`]*\n(.*?)\n?[ \t]*\1\s*\Z", re.DOTALL)


def unfenced(text: str) -> str:
    """What a fenced block holds where the whole answer is one; else the answer; both stripped.

    A block with text around it, or two blocks, are left as they are.
    """
    stripped = text.strip()
    block = FENCED.match(stripped)
    if block is None or f"\n{block[1]}" in f"\n{block[2]}":
        return stripped
    return block[2].strip()
