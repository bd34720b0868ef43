"""Ending an answer at a stop string, without losing text that only looked like the start of one.

llama.cpp has stop strings of its own, but in streaming it never hands out what it held back: an
answer "C#" under the stop string "###" arrives as "C".
"""

from collections.abc import Sequence


class StopStrings:
    """Passes text through until the first stop string, which is cut off."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """The text that may go out now; sets `matched` when a stop string has been reached.

        An end that could still grow into a stop string is held back until more text or `rest`.
        """
        text = self._held + text
        self._held = ""
        found = [position for stop in self._stop if (position := text.find(stop)) >= 0]
        if found:
            self.matched = True
            return text[: min(found)]
        num_held = max((_overlap(text, stop) for stop in self._stop), default=0)
        cut = len(text) - num_held
        self._held = text[cut:]
        return text[:cut]

    def rest(self) -> str:
        """What is still held back, once the answer has ended by itself."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
