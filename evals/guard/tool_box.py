"""The tools that questions of the tool-call set offer, in OpenAI's form."""

from collections.abc import Mapping
from typing import Any

from data.conversation import ToolDefinition


def _tool(name: str, description: str, parameters: Mapping[str, Any]) -> ToolDefinition:
    """A function all of whose parameters are required."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": dict(parameters),
                "required": list(parameters),
                "additionalProperties": False,
            },
        },
    }


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _integer(description: str) -> dict[str, Any]:
    return {"type": "integer", "description": description}


def _one_of(description: str, *options: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(options), "description": description}


_DEFINITIONS = (
    _tool("get_weather", "Current weather in a city.", {"city": _text("Name of the city.")}),
    _tool(
        "convert_currency",
        "Converts an amount of money at today's rate.",
        {
            "amount": {"type": "number", "description": "Amount to convert."},
            "from_currency": _text("ISO 4217 code, such as USD."),
            "to_currency": _text("ISO 4217 code, such as EUR."),
        },
    ),
    _tool(
        "set_timer", "Starts a timer on this device.", {"minutes": _integer("Length in minutes.")}
    ),
    _tool(
        "get_order_status",
        "Where an order is.",
        {"order_id": _text("Number of the order as the customer gives it.")},
    ),
    _tool(
        "cancel_order",
        "Cancels an order for good.",
        {"order_id": _text("Number of the order as the customer gives it.")},
    ),
    _tool(
        "get_stock_price",
        "Latest price of a share.",
        {"ticker": _text("Ticker symbol in capital letters.")},
    ),
    _tool(
        "set_light",
        "Switches the light of a room.",
        {
            "room": _one_of("Which room.", "kitchen", "bedroom", "office", "hall"),
            "state": _one_of("On or off.", "on", "off"),
        },
    ),
    _tool(
        "set_thermostat",
        "Sets the temperature of a room.",
        {
            "room": _one_of("Which room.", "kitchen", "bedroom", "office", "hall"),
            "celsius": _integer("Temperature in degrees Celsius."),
        },
    ),
    _tool(
        "book_table",
        "Books a table in a restaurant.",
        {
            "restaurant": _text("Name of the restaurant."),
            "date": _text("Day in the form YYYY-MM-DD."),
            "time": _text("Time in the form HH:MM, 24 hours."),
            "num_guests": _integer("Number of guests."),
        },
    ),
    _tool(
        "find_flights",
        "Direct flights on a day.",
        {
            "origin": _text("IATA code of the airport of departure."),
            "destination": _text("IATA code of the airport of arrival."),
            "date": _text("Day in the form YYYY-MM-DD."),
        },
    ),
    _tool(
        "add_to_shopping_list",
        "Puts one thing on the shopping list.",
        {
            "item": _text("What to buy, in the singular and in small letters."),
            "quantity": _integer("How many."),
        },
    ),
    _tool(
        "reset_password",
        "Sends a link for a new password.",
        {"email": _text("Email address of the account.")},
    ),
    _tool(
        "get_exchange_holidays",
        "Days on which a stock exchange stays closed.",
        {"country": _text("ISO 3166 code of two capital letters."), "year": _integer("The year.")},
    ),
    _tool(
        "restart_server",
        "Restarts a server at once.",
        {"hostname": _text("Host name of the server.")},
    ),
    _tool(
        "create_ticket",
        "Opens a support ticket.",
        {
            "priority": _one_of("How urgent it is.", "low", "normal", "high"),
            "component": _one_of("What it concerns.", "printer", "network", "email", "laptop"),
        },
    ),
    _tool("get_local_time", "The time in a city now.", {"city": _text("Name of the city.")}),
)

TOOLS: dict[str, ToolDefinition] = {tool["function"]["name"]: tool for tool in _DEFINITIONS}
