"""What a model writes, as HTML that can only be read: two walls that know nothing of each other.

The parser makes no HTML of what looks like HTML, and what it has made is cleaned by nh3, tag by
tag, as if it were a stranger's.
"""

import re
from collections.abc import Sequence

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

MAX_CHARACTERS = 100_000
"""A longer text is refused: parsing what was made to take long takes seconds then."""

TAGS = frozenset(
    {
        *("h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "blockquote", "pre", "code"),
        *("ul", "ol", "li", "em", "strong", "s", "a"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
)
ATTRIBUTES = {"a": {"href", "title", "target"}, "code": {"class"}, "ol": {"start"}}
SCHEMES = {"http", "https", "mailto"}
LANGUAGE = re.compile(r"language-[A-Za-z0-9+#_.-]+")


class _Renderer(RendererHTML):
    """Images become words: fetching one would tell its host that the answer was read."""

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """The image's description and address as text."""
        token = tokens[idx]
        told = self.renderInlineAsText(token.children or [], options, env)
        return nh3.clean_text(f"[image: {told}] ({token.attrGet('src')})")


_parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable(
    ["table", "strikethrough"]
)


def render_markdown(text: str) -> str:
    """CommonMark with tables and strikethrough as HTML of the tags above and nothing else."""
    return nh3.clean(
        _parser.render(text),
        tags=set(TAGS),
        attributes=ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        attribute_filter=_kept,
        strip_comments=True,
    )


def _kept(tag: str, name: str, value: str) -> str | None:
    """Classes are those of code's languages, by which nothing of the page's own can be dressed."""
    if name != "class":
        return value
    return value if LANGUAGE.fullmatch(value) else None
