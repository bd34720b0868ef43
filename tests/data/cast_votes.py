"""Votes that tests cast."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from data.votes import Choice, PostedVote, Vote, append_vote

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def posted(
    question: str = "Which number is it?",
    *,
    choice: Choice = "a",
    models: tuple[str, str] = ("ours", "theirs"),
    answers: tuple[str | None, str | None] = ("It is 4.", "Who knows?"),
    **more: object,
) -> dict[str, Any]:
    """A vote as the page sends it."""
    sides = {
        side: {"model": model, "target": None, "message": {"role": "assistant", "content": text}}
        for side, model, text in zip("ab", models, answers, strict=True)
    }
    return {
        "messages": [{"role": "user", "content": question}],
        "parameters": {"temperature": 0.5},
        **sides,
        "choice": choice,
        "shown_first": "a",
        **more,
    }


def cast(
    question: str = "Which number is it?",
    *,
    number: int = 0,
    client: str = "anna",
    **more: Any,  # noqa: ANN401 - those of `posted`
) -> Vote:
    """The vote as it is kept; number: tells its id and its day."""
    vote = PostedVote.model_validate(posted(question, **more))
    fields = {name: getattr(vote, name) for name in PostedVote.model_fields}
    time = START + timedelta(days=number)
    return Vote(**fields, id=f"vote-{number}", time=time, client=client)


def keep(file: Path, votes: Sequence[Vote]) -> Path:
    """Write votes to a file, one after the other."""
    for vote in votes:
        append_vote(file, vote)
    return file
