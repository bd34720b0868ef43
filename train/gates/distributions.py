"""How far two models' next-token distributions are apart, by the likeliest tokens of each."""

from typing import NamedTuple

import numpy as np

from train.gates.scoring import Scores

# What a probability that is left over is at least taken for: sums of fp32 numbers say no more.
SMALLEST = 1e-6


class KnownTokens(NamedTuple):
    """The first model's likeliest tokens (n, k) as the second one knows them.

    is_known: whether they are among its own likeliest; log_probs: its log-probabilities of those.
    """

    is_known: np.ndarray
    log_probs: np.ndarray


def look_up(tokens: Scores, model: Scores) -> KnownTokens:
    """What `model` says of the likeliest tokens of `tokens`, place by place."""
    is_same = tokens.top_ids[:, :, None] == model.top_ids[:, None, :]
    found = np.take_along_axis(model.top_log_probs.astype(float), is_same.argmax(-1), axis=1)
    is_known = is_same.any(-1)
    return KnownTokens(is_known, np.where(is_known, found, 0.0))


def kl_divergences(first: Scores, second: Scores) -> np.ndarray:
    """KL(first ‖ second) at every scored token, in nats, (n,): a lower bound of the true one.

    The vocabulary is put into bins: one for each token that both keep, one for the others that
    `first` keeps, one for all the rest. Lumping tokens can only take away from a divergence (the
    data-processing inequality; Cover & Thomas, §2.8). What `second` gives the middle bin is not
    known, only that none of its tokens is likelier than the unlikeliest that it keeps: of what is
    possible, that which gives the smallest divergence is taken.
    """
    known, second_log = look_up(first, second)
    first_log = first.top_log_probs.astype(float)
    p, q = np.exp(first_log), np.exp(second.top_log_probs.astype(float))
    p_own = np.where(known, 0, p).sum(-1)
    p_rest = np.clip(1 - p.sum(-1), SMALLEST, None)
    q_left = np.clip(1 - np.where(known, np.exp(second_log), 0).sum(-1), SMALLEST, None)
    most = np.minimum((~known).sum(-1) * q.min(-1), 1 - q.sum(-1))
    q_own = np.clip(np.minimum(q_left * p_own / (p_own + p_rest), most), SMALLEST, None)
    q_rest = np.clip(q_left - q_own, SMALLEST, None)
    divergences = np.where(known, p * (first_log - second_log), 0).sum(-1)
    divergences += p_own * np.log(np.clip(p_own, SMALLEST, None) / q_own)
    divergences += p_rest * np.log(p_rest / q_rest)
    result: np.ndarray = np.maximum(divergences, 0)
    return result


def divergences(first: Scores, second: Scores) -> np.ndarray:
    """The larger of KL(first ‖ second) and KL(second ‖ first) at every scored token, in nats, (n,).

    Of models that are nearly the same both are as large. Where one is sure of a token and the other
    of none, only the divergence from the one that is sure can be told by likeliest tokens: those of
    the other carry next to nothing.
    """
    result: np.ndarray = np.maximum(kl_divergences(first, second), kl_divergences(second, first))
    return result


def logit_cosines(first: Scores, second: Scores) -> np.ndarray:
    """Cosine between the two models' logits of the tokens that both keep, (n,).

    Log-probabilities are logits but for a constant, so both are centred; 0 where fewer than two
    tokens are shared.
    """
    known, second_log = look_up(first, second)
    counts = np.clip(known.sum(-1, keepdims=True), 1, None)

    def centred(values: np.ndarray) -> np.ndarray:
        values = np.where(known, values, 0)
        return np.where(known, values - values.sum(-1, keepdims=True) / counts, 0)

    a, b = centred(first.top_log_probs.astype(float)), centred(second_log)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.where(lengths > 0, (a * b).sum(-1) / np.clip(lengths, SMALLEST, None), 0)


def effect_share(base: Scores, reference: Scores, artefact: Scores) -> float:
    """How much of what the reference changes in the base is found in the artefact: 1 is all.

    The slope of the artefact's changes of log-probabilities on the reference's, each change
    weighted by its token's probability (the Fisher metric, in which the divergence is a squared
    length). What quantization adds is as good as unrelated to the adapter and falls out of it: an
    artefact that differs from the base by nothing but its own rounding has a share near 0, however
    coarse that is. Of each place the tokens that all three keep count, and the one that stands
    there.
    """
    in_base, base_log = look_up(reference, base)
    in_artefact, artefact_log = look_up(reference, artefact)
    reference_log = reference.top_log_probs.astype(float)
    known = in_base & in_artefact
    own = np.stack([one.log_probs.astype(float) for one in (base, reference, artefact)])
    tops = np.stack([base_log, reference_log, artefact_log])[:, known]
    # The token that stands there is among the likeliest at most places: it counts once.
    is_top = (known & np.isclose(reference_log, own[1][:, None], atol=1e-6)).any(-1)
    logs = np.concatenate([tops, own[:, ~is_top]], axis=1)
    weights = (np.exp(logs[0]) + np.exp(logs[1])) / 2
    wanted, found = logs[1] - logs[0], logs[2] - logs[0]
    length = (weights * wanted**2).sum()
    return float((weights * wanted * found).sum() / length) if length > 0 else 0.0
