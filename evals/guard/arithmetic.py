"""Arithmetic questions, made out of templates and fixed numbers, so that every result is exact.

Questions of one template differ in nothing but numbers and names: they are one cluster.
"""

from collections.abc import Callable
from fractions import Fraction
from random import Random

from evals.guard.question_set import build_question
from evals.task import Question

NUM_PER_TEMPLATE = 5
ASK_NUMBER = "Answer with the number only."
NAMES = ("Anna", "Ben", "Chloe", "David", "Elif", "Farid", "Grace", "Hugo")
GOODS = ("apples", "pencils", "tickets", "postcards", "rolls", "candles")

# A template gives a question and its result out of a stream of random numbers.
Template = Callable[[Random], tuple[str, int | Fraction]]


def load_arithmetic() -> list[Question]:
    """All questions, the same ones at every call."""
    return [question for name, template in TEMPLATES.items() for question in _fill(name, template)]


def _fill(name: str, template: Template) -> list[Question]:
    """Different questions of one template; its name seeds them, so that templates can be added."""
    draw = Random(name)  # noqa: S311 (no secret)
    results: dict[str, float] = {}
    while len(results) < NUM_PER_TEMPLATE:
        prompt, result = template(draw)
        results[prompt] = float(result)
    return [
        build_question(
            f"{name.replace(' ', '-')}-{number}",
            f"{prompt} {ASK_NUMBER}",
            f"{value:.10g}",
            cluster=name,
            check={"checks": [{"kind": "number", "value": value, "tolerance": 1e-6}]},
        )
        for number, (prompt, value) in enumerate(results.items(), start=1)
    ]


def _sum(draw: Random) -> tuple[str, int]:
    a, b = draw.randint(120, 980), draw.randint(120, 980)
    return f"What is {a} + {b}?", a + b


def _sum_of_three(draw: Random) -> tuple[str, int]:
    a, b, c = (draw.randint(11, 99) for _ in range(3))
    return f"What is {a} + {b} + {c}?", a + b + c


def _difference(draw: Random) -> tuple[str, int]:
    a, b = draw.randint(500, 980), draw.randint(110, 490)
    return f"What is {a} - {b}?", a - b


def _below_zero(draw: Random) -> tuple[str, int]:
    a, b = draw.randint(3, 40), draw.randint(45, 90)
    return f"What is {a} - {b}?", a - b


def _product(draw: Random) -> tuple[str, int]:
    a, b = draw.randint(6, 19), draw.randint(12, 29)
    return f"What is {a} × {b}?", a * b


def _quotient(draw: Random) -> tuple[str, int]:
    a, b = draw.randint(4, 15), draw.randint(6, 40)
    return f"What is {a * b} ÷ {a}?", b


def _remainder(draw: Random) -> tuple[str, int]:
    a, b = draw.randint(30, 99), draw.randint(4, 9)
    return f"What is the remainder when {a} is divided by {b}?", a % b


def _precedence(draw: Random) -> tuple[str, int]:
    a, b, c = draw.randint(5, 30), draw.randint(3, 9), draw.randint(3, 12)
    return f"What is {a} + {b} × {c}?", a + b * c


def _brackets(draw: Random) -> tuple[str, int]:
    a, b, c = draw.randint(2, 15), draw.randint(2, 15), draw.randint(3, 9)
    return f"What is ({a} + {b}) × {c}?", (a + b) * c


def _square(draw: Random) -> tuple[str, int]:
    a = draw.randint(6, 20)
    return f"What is {a} squared?", a * a


def _decimals(draw: Random) -> tuple[str, Fraction]:
    a, b = Fraction(draw.randint(11, 99), 10), Fraction(draw.randint(11, 99), 10)
    return f"What is {float(a)} + {float(b)}?", a + b


def _percentage(draw: Random) -> tuple[str, int]:
    percent, whole = draw.choice((5, 10, 15, 20, 25, 30, 75)), draw.randint(2, 12) * 100
    return f"What is {percent}% of {whole}?", percent * whole // 100


def _discount(draw: Random) -> tuple[str, int]:
    percent, price = draw.choice((10, 20, 25, 50)), draw.randint(2, 15) * 20
    return (
        f"A coat costs {price} euros. In the sale it is {percent}% cheaper. How many euros does it "
        "cost in the sale?",
        price - price * percent // 100,
    )


def _mean(draw: Random) -> tuple[str, int]:
    mean, off = draw.randint(12, 60), draw.randint(1, 9)
    return f"What is the mean of {mean - off}, {mean} and {mean + off}?", mean


def _largest(draw: Random) -> tuple[str, int]:
    found = draw.sample(range(100, 999), 5)
    return f"Which is the largest of these numbers: {', '.join(map(str, found))}?", max(found)


def _equation(draw: Random) -> tuple[str, int]:
    a, x, b = draw.randint(2, 9), draw.randint(2, 12), draw.randint(1, 20)
    return f"Solve for x: {a}x + {b} = {a * x + b}. What is x?", x


def _purchase(draw: Random) -> tuple[str, int]:
    count, price = draw.randint(3, 12), draw.randint(2, 9)
    name, goods = draw.choice(NAMES), draw.choice(GOODS)
    return (
        f"{name} buys {count} {goods} at {price} euros each and pays with a 200 euro note. How "
        "many euros does the shop give back?",
        200 - count * price,
    )


def _sharing(draw: Random) -> tuple[str, int]:
    count, share = draw.randint(3, 8), draw.randint(4, 15)
    name, goods = draw.choice(NAMES), draw.choice(GOODS)
    return (
        f"{name} shares {count * share} {goods} equally among {count} children. How many does each "
        "child get?",
        share,
    )


def _duration(draw: Random) -> tuple[str, int]:
    start, minutes = draw.randint(7 * 60, 12 * 60), draw.randint(35, 170)
    end = start + minutes
    return (
        f"A train leaves at {start // 60:02}:{start % 60:02} and arrives at {end // 60:02}:"
        f"{end % 60:02} on the same day. How many minutes does it take?",
        minutes,
    )


def _travel(draw: Random) -> tuple[str, int]:
    speed, hours = draw.choice((40, 50, 60, 80, 90, 120)), draw.randint(2, 6)
    return (
        f"A car drives at {speed} kilometres per hour for {hours} hours. How many kilometres does "
        "it cover?",
        speed * hours,
    )


def _units(draw: Random) -> tuple[str, int]:
    factor, big, small = draw.choice(
        ((1000, "kilometres", "metres"), (100, "metres", "centimetres"), (60, "hours", "minutes"))
    )
    count = draw.randint(3, 45)
    return f"How many {small} are {count} {big}?", count * factor


def _rectangle(draw: Random) -> tuple[str, int]:
    a, b = draw.randint(4, 18), draw.randint(4, 18)
    return (
        f"A rectangle is {a} metres long and {b} metres wide. What is its area in square metres?",
        a * b,
    )


TEMPLATES: dict[str, Template] = {
    "sum": _sum,
    "sum of three": _sum_of_three,
    "difference": _difference,
    "below zero": _below_zero,
    "product": _product,
    "quotient": _quotient,
    "remainder": _remainder,
    "precedence": _precedence,
    "brackets": _brackets,
    "square": _square,
    "decimals": _decimals,
    "percentage": _percentage,
    "discount": _discount,
    "mean": _mean,
    "largest": _largest,
    "equation": _equation,
    "purchase": _purchase,
    "sharing": _sharing,
    "duration": _duration,
    "travel": _travel,
    "units": _units,
    "rectangle": _rectangle,
}
