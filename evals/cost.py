"""What asking costs, told before money is spent and counted afterwards, and from how many requests
a month a machine of one's own is cheaper.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import UserError
from configs.evaluation_schema import OwnCost, Price
from data.conversation import Message, text_of
from evals.answer_figures import latency, mean, total
from evals.prompts import build_prompt
from evals.results import CostResult, SideCost
from evals.task import Answer, EvaluationTask, Question
from evals.tasks import log_name

SECONDS_PER_MONTH = 365.25 / 12 * 86_400
CHARACTERS_PER_TOKEN = 3.0
"""Fewer than English text has (about four), so that an estimate is rather too high."""
TOKENS_PER_TURN = 4
"""Marks that chat templates put around a turn."""
TOKENS_PER_IMAGE = 1_500
"""An image of about a megapixel, at the 784 pixels a token that Mistral's models take."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What asking one side will take.

    completion_tokens and cost: as measured, or with answers as long as the references; most_…: if
    every answer ran to its limit; cost: None without a price; num_measured: requests whose tokens
    are extrapolated from a pilot's, out of num_requests.
    """

    num_requests: int
    prompt_tokens: int
    completion_tokens: int
    most_completion_tokens: int
    cost: float | None
    most_cost: float | None
    currency: str | None
    num_measured: int

    def describe(self) -> str:
        """The preview in words, for the terminal."""
        how = "estimated from the texts' length"
        if self.num_measured == self.num_requests:
            how = "extrapolated from the pilot's"
        elif self.num_measured:
            how = f"extrapolated from the pilot's for {self.num_measured:,} of the requests"
        tokens = (
            f"{self.num_requests:,} requests, about {self.prompt_tokens:,} tokens of prompts and "
            f"{self.completion_tokens:,} of answers ({how}; at most "
            f"{self.most_completion_tokens:,} of answers)"
        )
        if self.cost is None or self.most_cost is None:
            return f"{tokens}; no price is configured"
        return (
            f"{tokens}: about {format_money(self.cost, self.currency)}, at most "
            f"{format_money(self.most_cost, self.currency)}"
        )


@dataclass(frozen=True, kw_only=True)
class AskedSide:
    """A side's answers, for its costs.

    answers: all of them, whatever the prompt; judged: those that the verdict rests on, to the
    domain's tasks and with the prompt that counts; price: None for a machine of one's own.
    """

    name: str
    answers: Sequence[Answer]
    judged: Sequence[Answer]
    price: Price | None = None


def rough_num_tokens(text: str) -> int:
    """Tokens of a text whose tokenizer is not at hand, rather too many than too few."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def preview(
    tasks: Sequence[tuple[EvaluationTask, bool]],
    *,
    price: Price | None,
    num_tokens: Callable[[str], int] = rough_num_tokens,
    pilot: Mapping[str, Sequence[Answer]] | None = None,
) -> Preview:
    """What asking one side all `tasks` takes; each comes with whether worked examples are shown.

    pilot: answers of a smaller run by the inspect task's name (`evals.tasks.log_name`); where the
    host told its tokens, tokens = mean of the pilot's requests x number of requests. Else prompts
    are counted by `num_tokens` plus a few tokens a turn, and answers are taken to be as long as
    the references. cost = tokens / 1,000,000 x price, of prompts and of answers.
    """
    parts = [_preview_one(task, examples, num_tokens, pilot or {}) for task, examples in tasks]
    prompt_tokens = sum(part.prompt_tokens for part in parts)
    completion_tokens = sum(part.completion_tokens for part in parts)
    most = sum(part.most_completion_tokens for part in parts)
    return Preview(
        num_requests=sum(part.num_requests for part in parts),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        most_completion_tokens=most,
        cost=_cost(price, prompt_tokens, completion_tokens) if price else None,
        most_cost=_cost(price, prompt_tokens, most) if price else None,
        currency=price.currency if price else None,
        num_measured=sum(part.num_requests for part in parts if part.is_measured),
    )


def cost_of_sides(sides: Sequence[AskedSide], *, own_cost: OwnCost | None, own: str) -> CostResult:
    """Tokens, latency and cost of each side, and the break-even.

    own: name of the side that runs on a machine of one's own, the variant. With c = the cost of a
    mean request (judged answers) of the first side that has a price, and m = own_cost.per_month:
    break_even_requests = ceil(m / c), from which on the own machine is cheaper;
    own_capacity_requests = floor(seconds of a month / mean seconds of the own side's judged
    answers): one request after the other, on a machine that does nothing else. What a missing
    price, cost or measurement leaves open is None. Errors: `UserError` for several currencies.
    """
    currency = check_currencies([side.price for side in sides], own_cost)
    costs = [_cost_of_side(side) for side in sides]
    per_request = next((cost["per_request"] for cost in costs if cost["per_request"]), None)
    per_month = own_cost.per_month if own_cost else None
    own_side = next(side for side in sides if side.name == own)
    seconds = [answer.seconds for answer in own_side.judged if answer.seconds]
    return CostResult(
        sides=costs,
        own_per_month=per_month,
        break_even_requests=(
            math.ceil(per_month / per_request) if per_month is not None and per_request else None
        ),
        own_capacity_requests=(
            math.floor(SECONDS_PER_MONTH / float(np.mean(seconds))) if seconds else None
        ),
        currency=currency,
    )


def check_currencies(prices: Iterable[Price | None], own_cost: OwnCost | None) -> str | None:
    """The one currency of all prices, None without any. Errors: `UserError` for several."""
    given = [one.currency for one in (*prices, own_cost) if one is not None]
    currencies = list(dict.fromkeys(given))
    if len(currencies) > 1:
        raise UserError(
            f"prices and costs are in different currencies: {' and '.join(currencies)}",
            where="evaluation: price and own_cost",
            remedy="give all of them in one currency; Tunery knows no exchange rates",
        )
    return currencies[0] if currencies else None


def format_money(amount: float, currency: str | None) -> str:
    """An amount with its currency; below 1, two digits that count."""
    digits = 2 if amount >= 1 or amount == 0 else 1 - math.floor(math.log10(amount))
    return f"{amount:,.{digits}f} {currency or ''}".rstrip()


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One inspect task's share of a preview."""

    num_requests: int
    prompt_tokens: int
    completion_tokens: int
    most_completion_tokens: int
    is_measured: bool


def _preview_one(
    task: EvaluationTask,
    with_examples: bool,
    num_tokens: Callable[[str], int],
    pilot: Mapping[str, Sequence[Answer]],
) -> _Part:
    num_requests = len(task.questions) * task.num_epochs
    answered = pilot.get(log_name(task, with_examples=with_examples), ())
    prompt = mean(answer.prompt_tokens for answer in answered)
    completion = mean(answer.completion_tokens for answer in answered)
    is_measured = prompt is not None and completion is not None
    if prompt is None or completion is None:
        examples = task.examples if with_examples else ()
        prompts = (
            _prompt_tokens(build_prompt(question, examples), question, num_tokens)
            for question in task.questions
        )
        answers = (
            min(task.max_tokens, _reply_tokens(question.reference, num_tokens))
            for question in task.questions
        )
        prompt, completion = mean(prompts) or 0.0, mean(answers) or 0.0
    return _Part(
        num_requests=num_requests,
        prompt_tokens=math.ceil(prompt * num_requests),
        completion_tokens=math.ceil(completion * num_requests),
        most_completion_tokens=task.max_tokens * num_requests,
        is_measured=is_measured,
    )


def _prompt_tokens(
    messages: Sequence[Message], question: Question, num_tokens: Callable[[str], int]
) -> int:
    tools = num_tokens(json.dumps(question.tools)) if question.tools else 0
    return tools + sum(
        TOKENS_PER_TURN + _reply_tokens(message, num_tokens) + _image_tokens(message)
        for message in messages
    )


def _reply_tokens(message: Message, num_tokens: Callable[[str], int]) -> int:
    calls = message.get("tool_calls")
    return num_tokens(text_of(message)) + (num_tokens(json.dumps(calls)) if calls else 0)


def _image_tokens(message: Message) -> int:
    content = message["content"]
    if isinstance(content, str):
        return 0
    return TOKENS_PER_IMAGE * sum(part["type"] == "image_url" for part in content)


def _cost_of_side(side: AskedSide) -> SideCost:
    prompt = total(answer.prompt_tokens for answer in side.answers)
    completion = total(answer.completion_tokens for answer in side.answers)
    seconds = latency(side.judged)
    cost = per_request = None
    if side.price is not None:
        if prompt is not None and completion is not None:
            cost = _cost(side.price, prompt, completion)
        mean_prompt = mean(answer.prompt_tokens for answer in side.judged)
        mean_completion = mean(answer.completion_tokens for answer in side.judged)
        if mean_prompt is not None and mean_completion is not None:
            per_request = _cost(side.price, mean_prompt, mean_completion)
    return SideCost(
        name=side.name,
        num_requests=len(side.answers),
        prompt_tokens=prompt,
        completion_tokens=completion,
        median_seconds=seconds.median_s,
        p95_seconds=seconds.p95_s,
        cost=cost,
        per_request=per_request,
        currency=side.price.currency if side.price else None,
    )


def _cost(price: Price, prompt_tokens: float, completion_tokens: float) -> float:
    spent = prompt_tokens * price.input_per_million + completion_tokens * price.output_per_million
    return spent / 1_000_000
