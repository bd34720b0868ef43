"""What a model writes as HTML: only what is on the list comes out, whatever goes in."""

import string
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.workbench.markdown import MAX_CHARACTERS, TAGS, render_markdown

ALLOWED = {
    "a": {"href", "title", "target", "rel"},
    "code": {"class"},
    "ol": {"start"},
}
NAMED_TAGS = {
    *("h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "ul", "ol", "li", "blockquote", "pre"),
    *("code", "em", "strong", "s", "a", "table", "thead", "tbody", "tr", "th", "td"),
}
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<style>*{display:none}</style>",
    "<form action=//evil.invalid><input name=key></form>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java&#x0A;script:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:x)",
    "[x](file:///etc/passwd)",
    '[x](https://a.invalid "t\\" onmouseover=alert(1) x=\\"")',
    "![x](https://evil.invalid/pixel.png)",
    '![x" onerror="alert(1)](https://evil.invalid/a.png)',
    "![<script>alert(1)</script>](x)",
    "<https://a.invalid/\"onclick='x'>",
    "```html\n</code></pre><script>alert(1)</script>\n```",
    '```x" onclick="alert(1)\ncode\n```',
    "```language-tab hidden\ncode\n```",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--><img src=x onerror=alert(1)>-->",
    "[a]: javascript:alert(1)\n\n[a]",
    "| a |\n|-|\n| <img src=x onerror=alert(1)> |",
    "<x onclick=alert(1)>\n\n*a*",
    "\u202e<script>\x00alert(1)</script>",
]


class _Found(HTMLParser):
    """Tags and attributes, as a browser's parser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.odd: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.odd.append(data)

    def handle_decl(self, decl: str) -> None:
        self.odd.append(decl)

    def handle_pi(self, data: str) -> None:
        self.odd.append(data)


def assert_inert(html: str) -> _Found:
    """Nothing in it is off the list that stands above, which is this test's own."""
    found = _Found(html)
    assert not found.odd
    for tag, attributes in found.tags:
        assert tag in NAMED_TAGS, tag
        assert attributes.keys() <= ALLOWED.get(tag, set()), (tag, attributes)
        if tag == "a" and "href" in attributes:
            assert urlsplit(attributes["href"] or "").scheme in ("", "http", "https", "mailto")
            assert attributes["rel"] == "noopener noreferrer nofollow"
            assert attributes["target"] == "_blank"
        if "class" in attributes:
            language = (attributes["class"] or "").removeprefix("language-")
            assert language != attributes["class"]
            assert set(language) <= set("+#_.-" + string.ascii_letters + string.digits)
    return found


def test_the_list_of_tags_is_the_one_that_is_tested() -> None:
    assert TAGS == NAMED_TAGS


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    assert_inert(render_markdown(text))


@given(st.text(max_size=200))
def test_any_text_is_inert(text: str) -> None:
    assert_inert(render_markdown(text))


@given(
    st.lists(st.sampled_from([*HOSTILE, "\n", "\n\n", " ", "> ", "- ", "`", "*", "|", "[", "]("]))
)
def test_any_mixture_of_hostile_parts_is_inert(parts: list[str]) -> None:
    assert_inert(render_markdown("".join(parts)))


def test_what_looks_like_html_is_shown_as_it_was_written() -> None:
    assert "<script>alert(1)</script>" in _Found(render_markdown(HOSTILE[0])).text


def test_an_image_is_its_words_and_its_address() -> None:
    found = _Found(render_markdown("See ![a *big* cat](https://evil.invalid/cat.png)."))
    assert [tag for tag, _ in found.tags] == ["p"]
    assert found.text.strip() == "See [image: a big cat] (https://evil.invalid/cat.png)."


def test_an_images_words_are_shown_as_they_were_written() -> None:
    found = _Found(render_markdown("![a <i> & b](x)"))
    assert [tag for tag, _ in found.tags] == ["p"]
    assert "[image: a <i> & b]" in found.text


def test_markdown_is_rendered() -> None:
    html = render_markdown(
        '# Licence\n\n**MIT** is *permissive*, ~~not~~ [see](https://spdx.org/ "SPDX").\n\n'
        "3. third\n\n| id | kind |\n|---|---|\n| MIT | a |\n\n```python\nif 1 < 2: pass\n```\n"
    )
    assert "<h1>Licence</h1>" in html
    assert "<strong>MIT</strong> is <em>permissive</em>, " in html
    assert "<s>not</s>" in html
    assert '<ol start="3">' in html
    assert "<th>id</th>" in html
    assert '<code class="language-python">if 1 &lt; 2: pass' in html
    assert 'href="https://spdx.org/"' in html


@pytest.mark.parametrize("language", ["c++", "c#", "objective-c", "python3"])
def test_code_keeps_its_language(language: str) -> None:
    assert f'class="language-{language}"' in render_markdown(f"```{language}\nx\n```")


@pytest.mark.parametrize(
    "part", ["[", "*a ", "> ", "- ", "![", "<", "a|", "[a](b", "*_", "~~", "&", "`", "\\", "1. "]
)
def test_text_made_to_take_long_is_taken_at_its_longest(part: str) -> None:
    assert_inert(render_markdown(part * (MAX_CHARACTERS // len(part))))
