"""A preference pair as tokens: two answers to one and the same prompt."""

from collections.abc import Sequence

import numpy as np

from data.tokens.rendered import Rendered


def last_answer_start(mask: Sequence[int] | np.ndarray) -> int:
    """Where the last stretch of supervised tokens begins, which is the row's last answer.

    mask: 1 on supervised tokens, at least one of them.
    """
    supervised = np.flatnonzero(np.asarray(mask))
    behind_gaps = np.flatnonzero(np.diff(supervised) > 1) + 1
    return int(supervised[behind_gaps[-1] if len(behind_gaps) else 0])


def pair_problem(preferred: Rendered, rejected: Rendered, *, max_length: int) -> str:
    """Why two rows that differ in their last answer are no pair, empty where they are one.

    preferred: cut to `max_length` tokens; rejected: uncut. Neither may lose its last turn, for
    nothing would be left to compare, and what stands before it has to be the same to the token.
    """
    if rejected.problem:
        return f"its rejected answer: {rejected.problem}"
    if preferred.num_dropped_turns or len(rejected.input_ids) > max_length:
        return f"a preference pair of more than {max_length} tokens"
    if preferred.input_ids == rejected.input_ids:
        return "the preferred and the rejected answer are the same tokens"
    starts = [last_answer_start(one.assistant_mask) for one in (preferred, rejected)]
    if preferred.input_ids[: starts[0]] != rejected.input_ids[: starts[1]]:
        return "the preferred and the rejected answer do not follow the same tokens"
    return ""
