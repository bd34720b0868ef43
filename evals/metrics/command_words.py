"""A command's words in one order, where the order of its options does not matter."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from evals.metrics.command_options import PROGRAMS, Options

# In a word: before a letter that the shell expands, and before an expansion.
ACTIVE, OPEN = "\x01", "\x02"
OPERANDS = "\x05"
OBSOLETE_COUNT = re.compile(r"-\d+")


class _Parsed(NamedTuple):
    options: list[tuple[str, str | None]]
    operands: list[str]


def arrange_words(words: Sequence[str]) -> list[str]:
    """The words, the same for two commands whose options differ only in order or spelling.

    words: the program's name, then its arguments without quotes. Options come first, sorted, each
    with its value, then, after the mark `OPERANDS`, operands in their order. The words come back
    as they are where the program is not in `PROGRAMS`, or takes an option that is not.
    """
    name, arguments = words[0], list(words[1:])
    if name == "aws":
        return [name, *_arrange_aws(arguments)]
    if name not in PROGRAMS:
        return list(words)
    if name in ("head", "tail") and arguments and OBSOLETE_COUNT.fullmatch(arguments[0]):
        arguments[0] = f"-n{arguments[0][1:]}"
    return [name, *_arrange(arguments, PROGRAMS[name])]


def _arrange(arguments: list[str], options: Options) -> list[str]:
    parsed = _parse(arguments, options)
    if parsed is None:
        return arguments
    operands = parsed.operands
    if options.runs and operands:
        operands = arrange_words(operands)
    ranks = {name: group[0] for group in map(str.split, options.ordered) for name in group}
    # Sorting is stable: among options that may override each other the order stays.
    in_order = sorted(parsed.options, key=lambda option: ranks.get(option[0], option[0]))
    return [*(_spelt(*option) for option in in_order), OPERANDS, *operands]


def _arrange_aws(arguments: list[str]) -> list[str]:
    """Arguments of the AWS CLI: service, operation, then options that each take what follows.

    `aws s3` has operands among its options, and is parsed as other programs are.
    """
    first = next((n for n, word in enumerate(arguments) if word.startswith("--")), len(arguments))
    if first == 0:
        return arguments
    if arguments[0] == "s3":
        return ["s3", *_arrange(arguments[1:], PROGRAMS["aws s3"])]
    groups: list[tuple[str, list[str]]] = []
    for word in arguments[first:]:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            groups.append((name, [value] if equals else []))
        else:
            groups[-1][1].append(word)
    groups.sort(key=lambda group: group[0])
    return [*arguments[:first], *(word for name, rest in groups for word in (f"--{name}", *rest))]


def _parse(arguments: Sequence[str], options: Options) -> _Parsed | None:
    """Options with their values, and operands, as getopt tells them apart; None where unsure."""
    found = _Parsed([], [])
    pending = list(reversed(arguments))
    while pending:
        word = pending.pop()
        if word == "--":
            if any(rest.startswith((ACTIVE, OPEN)) for rest in pending):
                # What these expand to may begin with a dash, from which `--` protects.
                found.operands.append(word)
            found.operands.extend(reversed(pending))
            break
        if word == "-" or not word.startswith("-"):
            found.operands.append(word)
            if options.ends_at_operand:
                found.operands.extend(reversed(pending))
                break
            continue
        read = _read_long if word.startswith("--") else _read_short
        named = read(word, pending, options)
        if named is None:
            return None
        found.options.extend(named)
    return found


def _read_long(
    word: str, pending: list[str], options: Options
) -> list[tuple[str, str | None]] | None:
    name, equals, value = word[2:].partition("=")
    known = options.long.split()
    if f"{name}=?" in known:
        return [(name, value if equals else None)]
    if f"{name}=" in known:
        if not equals and not pending:
            return None
        return [(name, value if equals else pending.pop())]
    return [(name, None)] if name in known and not equals else None


def _read_short(
    word: str, pending: list[str], options: Options
) -> list[tuple[str, str | None]] | None:
    named: list[tuple[str, str | None]] = []
    for place, letter in enumerate(word[1:], 2):
        found = options.short.find(letter)
        if found < 0 or letter == ":":
            return None
        takes, rest = options.short[found + 1 : found + 3], word[place:]
        if not takes.startswith(":"):
            named.append((letter, None))
            continue
        if takes == "::":
            return [*named, (letter, rest or None)]
        if not rest and not pending:
            return None
        return [*named, (letter, rest or pending.pop())]
    return named


def _spelt(name: str, value: str | None) -> str:
    dashes = "-" if len(name) == 1 else "--"
    return f"{dashes}{name}" if value is None else f"{dashes}{name}={value}"
