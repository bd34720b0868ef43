"""Whether an answer is the expected shell command, or one that differs only in its spelling."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from evals.metrics.command_words import ACTIVE, OPEN, arrange_words
from evals.metrics.fences import unfenced
from evals.metrics.score import Score
from evals.metrics.text import text_metric

PROMPT = re.compile(r"\A\$[ \t]+(?=\S)")
# No command is longer, and arrays nested thousands deep hold the parser for seconds.
MAX_PARSED = 8192
# Forms are texts held together by control characters, which no command is let in with.
BETWEEN, CLOSE = "\x03", "\x04"
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")

WORDS = frozenset(
    {"word", "string", "raw_string", "ansi_c_string", "translated_string", "concatenation"}
    | {"number", "simple_expansion", "expansion", "command_substitution", "process_substitution"}
    | {"arithmetic_expansion", "brace_expression", "extglob_pattern"}
)
EXPANSIONS = frozenset(
    {"simple_expansion", "expansion", "command_substitution", "process_substitution"}
    | {"arithmetic_expansion", "brace_expression", "extglob_pattern", "translated_string"}
)
DROPPED = frozenset({"comment", ";", "\n"})
AS_WRITTEN = frozenset({"heredoc_body", "regex", "c_style_for_statement"})
ESCAPED_IN_QUOTES = re.compile(r"\\([$`\"\\]|\n)")
ESCAPED_OR_ACTIVE = re.compile(
    r"\\(?P<escaped>.)|(?P<active>[*?\]~]|\[[!^]?)|[{},]|\.\.", re.DOTALL
)
BLANKS = re.compile(r"(?:[ \t\r\n]|\\\r?\n)*")
NAME_IN_BRACES = re.compile(r"\$\{([A-Za-z_]\w*|\d)\}")
QUOTING = re.compile(r"['\"\\]")


class _Unclear(Exception):
    """The command cannot be parsed as bash."""


def canonical_command(text: str) -> str:
    """A form that is equal for commands that do the same and differ only in their spelling.

    Forgiven is, and nothing else:

    - a fenced block, backquotes or a prompt `$ ` around the command; white space; a final `;`;
      comments; a newline for `;`, and a line continued by a backslash;
    - quotes and backslashes that change nothing: `'a'`, `"a"`, `\\a` and `a`, `{}` and `'{}'`;
      `${x}` for `$x`, and backquotes for `$(…)`;
    - of the programs in `evals.metrics.command_options`, as GNU's take them: the order of options
      among each other and to operands, unless one may override the other; `-la` for `-l -a`;
      `-n5` for `-n 5`; `--lines=5` for `--lines 5`; `head -5` for `head -n 5`; `--` before
      operands that plainly are some. A variable is taken for an operand. Of `aws`: the order of
      options, and `--x=1` for `--x 1`.

    Kept are the order of operands, of pipelines, of `&&`, of redirections, of all words of `find`
    and of programs not listed, quotes that keep a pattern or a variable from being expanded, and
    `-r` apart from `-R` or `--recursive`. What does not parse, or is longer than 8,192 characters,
    is compared word by word, white space between them folded, and to the letter where it holds
    quotes.
    """
    plain = unfenced(text)
    if len(plain) > 2 and plain[0] == plain[-1] == "`" and plain.count("`") == 2:
        plain = plain[1:-1].strip()
    plain = PROMPT.sub("", plain).replace("\r\n", "\n")
    if len(plain) <= MAX_PARSED and not CONTROL.search(plain):
        try:
            return _parsed_form(plain)
        except (_Unclear, RecursionError):
            pass
    return _form("words", *_split_words(plain))


def parses(text: str) -> bool:
    """Whether a command is compared by its structure, not just by its words."""
    return not canonical_command(text).startswith(f"{OPEN}words")


def judge_command(answer: str, expected: str) -> Score:
    """1 where both commands have the same `canonical_command`; label: the command, unfenced."""
    command = PROMPT.sub("", unfenced(answer))
    if not command:
        return Score(0.0, why="the answer is empty")
    same = canonical_command(answer) == canonical_command(expected)
    return Score(float(same), label=command)


def _parsed_form(text: str) -> str:
    source = text.encode("utf-8", "replace")
    tree = Parser(Language(tree_sitter_bash.language())).parse(source)
    if tree.root_node.has_error or not tree.root_node.named_child_count:
        raise _Unclear
    return _node_form(tree.root_node)


def _split_words(text: str) -> list[str]:
    """Words of what is no bash; one where quotes may hold blanks, whose meaning nobody knows."""
    return [text] if QUOTING.search(text) else text.split()


def _form(kind: str, *parts: str) -> str:
    return f"{OPEN}{kind}{BETWEEN}{BETWEEN.join(parts)}{CLOSE}"


def _source(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def _node_form(node: Node) -> str:
    if node.type == "command":
        return _command_form(node)
    if node.type in WORDS:
        return _word(node)
    if node.type in AS_WRITTEN or not node.child_count:
        return _source(node)
    return _form(node.type, *map(_node_form, _kept_children(node)))


def _kept_children(node: Node) -> list[Node]:
    """Children but for comments and separators of commands."""
    for gap, _ in _with_gaps(node, node.children):
        if not BLANKS.fullmatch(gap):
            # The parser takes escaped blanks and Unicode's blanks for white space, which for a
            # shell are letters.
            raise _Unclear
    return [child for child in node.children if child.type not in DROPPED]


def _command_form(node: Node) -> str:
    """A simple command: assignments before it, its words, redirections."""
    before, words, after = [], [], []
    end = -1
    for child in _kept_children(node):
        if child.type == "variable_assignment":
            before.append(_node_form(child))
        elif child.type == "command_name":
            words.append(_word(child.children[0]))
        elif child.type.endswith("_redirect"):
            after.append(_node_form(child))
        elif child.start_byte == end:
            # The parser ends a word after `{}`, though `{}\\;` is one.
            words[-1] += _word(child)
        else:
            words.append(_word(child))
        end = child.end_byte if child.type in WORDS else -1
    if not words:
        raise _Unclear
    return _form("command", *before, _form("", *arrange_words(words)), *after)


class _Piece(NamedTuple):
    kind: Literal["unquoted", "literal", "form"]
    text: str


def _word(node: Node) -> str:
    """A word without its quotes; what the shell would expand is marked, what it would not is not.

    So that `*` and `'*'`, `$x` and `'$x'`, `$x` and `"$x"` stay apart.
    """
    pieces = list(_pieces(node))
    unquoted = "".join(piece.text if piece.kind == "unquoted" else " " for piece in pieces)
    has_braces = "{" in unquoted and ("," in unquoted or ".." in unquoted)

    def mark(match: re.Match[str]) -> str:
        if match["escaped"]:
            return match["escaped"].removeprefix("\n")
        return f"{ACTIVE}{match[0]}" if match["active"] or has_braces else match[0]

    return "".join(
        ESCAPED_OR_ACTIVE.sub(mark, piece.text) if piece.kind == "unquoted" else piece.text
        for piece in pieces
    )


def _pieces(node: Node) -> Iterator[_Piece]:
    text = _source(node)
    if node.type == "raw_string":
        yield _Piece("literal", text[1:-1])
    elif node.type == "string":
        yield from _quoted_pieces(node)
    elif node.type == "ansi_c_string" and "\\" not in text:
        yield _Piece("literal", text[2:-1])
    elif node.type in EXPANSIONS or node.type == "ansi_c_string":
        yield _Piece("form", _expansion_form(node))
    elif not node.child_count:
        yield _Piece("unquoted", text)
    else:
        for gap, child in _with_gaps(node, node.children):
            yield _Piece("unquoted", gap)
            if child is not None:
                yield from _pieces(child)


def _quoted_pieces(node: Node) -> Iterator[_Piece]:
    """What stands between double quotes: expansions, and text, which here is between those."""
    expansions = [child for child in node.children if child.type in EXPANSIONS]
    for place, (gap, child) in enumerate(_with_gaps(node, expansions)):
        plain = gap[1:] if place == 0 else gap
        plain = plain[:-1] if child is None else plain
        yield _Piece("literal", ESCAPED_IN_QUOTES.sub(_unescaped, plain))
        if child is not None:
            yield _Piece("form", _form('"', _expansion_form(child)))


def _unescaped(match: re.Match[str]) -> str:
    return match[1].strip("\n")


def _with_gaps(node: Node, children: Sequence[Node]) -> Iterator[tuple[str, Node | None]]:
    """Each child with the source between it and the one before; last what follows, with None."""
    source, place = node.text or b"", 0
    for child in children:
        start = child.start_byte - node.start_byte
        yield source[place:start].decode("utf-8", "replace"), child
        place = child.end_byte - node.start_byte
    yield source[place:].decode("utf-8", "replace"), None


def _expansion_form(node: Node) -> str:
    text = _source(node)
    if node.type in ("command_substitution", "process_substitution"):
        if text.startswith("`") and "\\" in text:
            return _form("`", text)
        kind = ">(" if text.startswith(">(") else "<(" if text.startswith("<(") else "$("
        return _form(kind, *map(_node_form, _kept_children(node)[1:-1]))
    return _form("$", NAME_IN_BRACES.sub(r"$\1", text) if node.type == "expansion" else text)


score_command = text_metric(judge_command)
