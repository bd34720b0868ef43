"""Questions beside offered tools, made out of templates, each with the calls that it expects.

Every argument stands in the question as it has to be given, or follows from the parameter's own
description (a code, a date's form), so that exact comparison is fair. Questions of one template are
one cluster.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data.conversation import Message, ToolCall
from evals.guard.question_set import build_question
from evals.guard.tool_box import TOOLS
from evals.task import Question

Arguments = Mapping[str, Any]


class _Template(NamedTuple):
    """prompt: with the names of values in braces; calls: tool and the values that it takes.

    offered: further tools beside those that are called; values: one question each.
    """

    prompt: str
    calls: Sequence[tuple[str, Mapping[str, str]]]
    offered: Sequence[str]
    values: Sequence[Arguments]


def load_tool_questions() -> list[Question]:
    """All questions, the same ones at every call."""
    return [
        _build(name, template, number, values)
        for name, template in TEMPLATES.items()
        for number, values in enumerate(template.values, start=1)
    ]


def _build(name: str, template: _Template, number: int, values: Arguments) -> Question:
    called = [tool for tool, _ in template.calls]
    calls = [
        _call(position, tool, {key: values[value] for key, value in names.items()})
        for position, (tool, names) in enumerate(template.calls)
    ]
    offered = sorted({*called, *template.offered})
    reference: Message = {"role": "assistant", "content": ""}
    if calls:
        reference["tool_calls"] = calls
    return build_question(
        f"{name.replace(' ', '-')}-{number}",
        template.prompt.format(**values),
        reference,
        cluster=name,
        tools=[TOOLS[tool] for tool in offered],
    )


def _call(position: int, tool: str, arguments: Arguments) -> ToolCall:
    # Some models' templates take ids of exactly nine letters and digits only.
    text = json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call{position:05}",
        "type": "function",
        "function": {"name": tool, "arguments": text},
    }


def _each(name: str, *values: object) -> list[Arguments]:
    return [{name: value} for value in values]


def _rows(names: str, *rows: Sequence[object]) -> list[Arguments]:
    return [dict(zip(names.split(), row, strict=True)) for row in rows]


TEMPLATES: dict[str, _Template] = {
    "weather": _Template(
        "What is the weather like in {city} right now?",
        [("get_weather", {"city": "city"})],
        ["get_local_time", "find_flights"],
        _each("city", "Paris", "Oslo", "Lima", "Nairobi", "Berlin", "Toronto"),
    ),
    "local time": _Template(
        "What time is it in {city} at this moment?",
        [("get_local_time", {"city": "city"})],
        ["get_weather", "set_timer"],
        _each("city", "Tokyo", "Madrid", "Sydney", "Cairo", "Chicago", "Dublin"),
    ),
    "weather of two": _Template(
        "I need the current weather in {first} and also in {second}.",
        [("get_weather", {"city": "first"}), ("get_weather", {"city": "second"})],
        ["get_local_time"],
        _rows(
            "first second",
            ("Rome", "Milan"),
            ("Porto", "Lisbon"),
            ("Bonn", "Hamburg"),
            ("Delhi", "Mumbai"),
            ("Boston", "Denver"),
        ),
    ),
    "currency": _Template(
        "How much is {amount} {from_currency} in {to_currency} today?",
        [
            (
                "convert_currency",
                {
                    "amount": "amount",
                    "from_currency": "from_currency",
                    "to_currency": "to_currency",
                },
            )
        ],
        ["get_stock_price", "get_exchange_holidays"],
        _rows(
            "amount from_currency to_currency",
            (250, "USD", "EUR"),
            (80, "GBP", "CHF"),
            (1200, "EUR", "JPY"),
            (45, "CAD", "USD"),
            (999, "SEK", "NOK"),
            (30, "AUD", "NZD"),
        ),
    ),
    "currency in words": _Template(
        "Please convert {amount} {told} to {told_to}.",
        [
            (
                "convert_currency",
                {"amount": "amount", "from_currency": "code", "to_currency": "code_to"},
            )
        ],
        ["get_stock_price", "set_timer"],
        _rows(
            "amount told told_to code code_to",
            (60, "US dollars", "euros", "USD", "EUR"),
            (500, "Japanese yen", "US dollars", "JPY", "USD"),
            (75, "euros", "British pounds", "EUR", "GBP"),
            (340, "Swiss francs", "euros", "CHF", "EUR"),
            (20, "British pounds", "US dollars", "GBP", "USD"),
        ),
    ),
    "timer": _Template(
        "Set a timer for {minutes} minutes, please.",
        [("set_timer", {"minutes": "minutes"})],
        ["get_local_time", "set_light"],
        _each("minutes", 3, 8, 12, 25, 40, 90),
    ),
    "timer in hours": _Template(
        "Start a timer that rings in {told}.",
        [("set_timer", {"minutes": "minutes"})],
        ["get_local_time", "set_thermostat"],
        _rows(
            "told minutes",
            ("one hour", 60),
            ("two hours", 120),
            ("half an hour", 30),
            ("an hour and a half", 90),
            ("a quarter of an hour", 15),
        ),
    ),
    "order status": _Template(
        "Where is my order {order_id}?",
        [("get_order_status", {"order_id": "order_id"})],
        ["cancel_order", "create_ticket"],
        _each("order_id", "A-1042", "88213", "ZX-7", "2024-5519", "K9930", "B-0007"),
    ),
    "cancel": _Template(
        "I have changed my mind, please cancel my order {order_id}.",
        [("cancel_order", {"order_id": "order_id"})],
        ["get_order_status", "create_ticket"],
        _each("order_id", "A-2201", "77120", "QT-15", "2025-0098", "M4471", "C-0310"),
    ),
    "stock": _Template(
        "What does a share with the ticker symbol {ticker} cost?",
        [("get_stock_price", {"ticker": "ticker"})],
        ["convert_currency", "get_exchange_holidays"],
        _each("ticker", "MSFT", "AAPL", "SAP", "NVDA", "IBM", "TSLA"),
    ),
    "light": _Template(
        "Turn {state} the light in the {room}.",
        [("set_light", {"room": "room", "state": "state"})],
        ["set_thermostat", "set_timer"],
        _rows(
            "room state",
            ("kitchen", "on"),
            ("bedroom", "off"),
            ("office", "on"),
            ("hall", "off"),
            ("kitchen", "off"),
            ("hall", "on"),
        ),
    ),
    "light and heating": _Template(
        "Switch on the light in the {room} and set the temperature there to {celsius} degrees "
        "Celsius.",
        [
            ("set_light", {"room": "room", "state": "state"}),
            ("set_thermostat", {"room": "room", "celsius": "celsius"}),
        ],
        ["get_weather"],
        _rows(
            "room celsius state",
            ("kitchen", 20, "on"),
            ("bedroom", 18, "on"),
            ("office", 21, "on"),
            ("hall", 17, "on"),
            ("office", 19, "on"),
        ),
    ),
    "heating": _Template(
        "Make the {room} {celsius} degrees Celsius warm.",
        [("set_thermostat", {"room": "room", "celsius": "celsius"})],
        ["set_light", "get_weather"],
        _rows(
            "room celsius",
            ("office", 22),
            ("bedroom", 17),
            ("kitchen", 19),
            ("hall", 16),
            ("bedroom", 20),
        ),
    ),
    "table": _Template(
        "Book a table for {num_guests} at the restaurant {restaurant} on {date} at {time}.",
        [
            (
                "book_table",
                {
                    "restaurant": "restaurant",
                    "date": "date",
                    "time": "time",
                    "num_guests": "num_guests",
                },
            )
        ],
        ["get_weather", "get_local_time"],
        _rows(
            "restaurant date time num_guests",
            ("Bella Vista", "2026-03-14", "19:30", 4),
            ("Goldener Hirsch", "2026-05-02", "18:00", 2),
            ("Sakura", "2026-11-20", "20:15", 6),
            ("Chez Marie", "2026-07-09", "12:30", 3),
            ("Old Mill", "2026-12-24", "17:00", 8),
        ),
    ),
    "flights": _Template(
        "Which direct flights go from {origin} to {destination} on {told}?",
        [("find_flights", {"origin": "origin", "destination": "destination", "date": "date"})],
        ["get_weather", "book_table"],
        _rows(
            "origin destination told date",
            ("FRA", "JFK", "3 June 2026", "2026-06-03"),
            ("LHR", "MAD", "12 October 2026", "2026-10-12"),
            ("CDG", "FCO", "1 February 2026", "2026-02-01"),
            ("VIE", "OSL", "28 August 2026", "2026-08-28"),
            ("AMS", "LIS", "9 April 2026", "2026-04-09"),
        ),
    ),
    "shopping": _Template(
        "Put {quantity} {told} on my shopping list.",
        [("add_to_shopping_list", {"item": "item", "quantity": "quantity"})],
        ["get_order_status", "set_timer"],
        _rows(
            "quantity told item",
            (3, "lemons", "lemon"),
            (6, "eggs", "egg"),
            (2, "onions", "onion"),
            (4, "apples", "apple"),
            (5, "candles", "candle"),
        ),
    ),
    "password": _Template(
        "I forgot my password. My account runs under {email}.",
        [("reset_password", {"email": "email"})],
        ["create_ticket", "restart_server"],
        _each(
            "email",
            "lena@example.org",
            "j.ortiz@example.com",
            "office@example.net",
            "mara.k@example.org",
            "tom77@example.com",
        ),
    ),
    "holidays": _Template(
        "On which days is the stock exchange closed in {told} in {year}?",
        [("get_exchange_holidays", {"country": "country", "year": "year"})],
        ["get_stock_price", "convert_currency"],
        _rows(
            "told year country",
            ("Germany", 2026, "DE"),
            ("Japan", 2027, "JP"),
            ("France", 2026, "FR"),
            ("Canada", 2028, "CA"),
            ("Brazil", 2027, "BR"),
        ),
    ),
    "restart": _Template(
        "The server {hostname} hangs, please restart it now.",
        [("restart_server", {"hostname": "hostname"})],
        ["create_ticket", "reset_password"],
        _each("hostname", "web-01", "db-eu-3", "mail7", "build-agent-12", "cache-a"),
    ),
    "ticket": _Template(
        "Open a ticket of {priority} priority about the {component}.",
        [("create_ticket", {"priority": "priority", "component": "component"})],
        ["restart_server", "reset_password"],
        _rows(
            "priority component",
            ("high", "network"),
            ("low", "printer"),
            ("normal", "email"),
            ("high", "laptop"),
            ("low", "network"),
        ),
    ),
    "no tool: knowledge": _Template(
        "{told}",
        [],
        ["get_order_status", "cancel_order", "create_ticket"],
        _each(
            "told",
            "What is the capital of France?",
            "How many legs does a spider have?",
            "Who wrote Romeo and Juliet?",
            "What is 12 times 12?",
            "Which gas do plants take in from the air?",
        ),
    ),
    "no tool: writing": _Template(
        "{told}",
        [],
        ["get_weather", "convert_currency", "set_light"],
        _each(
            "told",
            "Write a rhyme of two lines about the sea.",
            "Translate 'good morning' into Spanish.",
            "Give me a synonym for 'happy'.",
            "Explain in one sentence what a noun is.",
            "Suggest a name for a grey kitten.",
        ),
    ),
    "no tool: small talk": _Template(
        "{told}",
        [],
        ["restart_server", "reset_password", "get_stock_price"],
        _each(
            "told",
            "Thank you, that was all!",
            "Good morning! How are you?",
            "I had a long day today.",
            "Goodbye and have a nice evening!",
        ),
    ),
    "no tool: none fits": _Template(
        "{told}",
        [],
        ["set_timer", "get_local_time", "add_to_shopping_list"],
        _each(
            "told",
            "Please order a taxi to the airport for me.",
            "Send an email to my boss that I am ill.",
            "Play some jazz in the living room.",
            "Print the document on my desk, please.",
            "Call my mother, please.",
        ),
    ),
}
