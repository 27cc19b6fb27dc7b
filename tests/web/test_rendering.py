"""Text of a model as HTML: shown, never run. Hypothesis looks for a text that gets out."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.web.rendering import LONGEST, formula, render

ELEMENTS = frozenset("p br hr strong em s code pre blockquote ul ol li h1 h2 h3 h4 h5 h6 table thead tbody tr th td span div math".split())
ALLOWED = {"class", "style", "start", "display"}
PIECES = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](http://e.org 'x\" onclick=\"y')",
    "![i](http://e.org/i.png)",
    "$x_1$",
    "$\\text{<b>}$",
    "$$\\frac{1}{2}$$",
    "```html\n<b>\n```",
    "| a | b |\n|---|---|\n| <i> | 2 |",
    "<http://e.org>",
    "&lt;script&gt;",
    "\n\n",
    "> ",
    "1. ",
    "* ",
    "`",
    "$",
    '"',
    "'",
]


class Seen(HTMLParser):
    """Elements and attributes of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += attrs


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=12))
def test_nothing_that_runs_or_leads_elsewhere_comes_out(parts: list[str]) -> None:
    seen = Seen(str(render("".join(parts))))
    formulas = {name for name in seen.elements if name.startswith("m")}
    assert seen.elements - formulas <= ELEMENTS and not {"maction", "mglyph"} & formulas
    for name, value in seen.attributes:
        assert not name.startswith("on") and name not in ("href", "src", "id"), (name, value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**b** and `c`", "<strong>b</strong> and <code>c</code>"),
        ("<b>", "&lt;b&gt;"),
        ("[x](http://e.org)", '<span class="link">x</span> <span class="address">(http://e.org)</span>'),
        ("![x](http://e.org/i)", '<span class="address">[image: x http://e.org/i]</span>'),
        ("it costs $5 or $6", "it costs $5 or $6"),
        ("$x^2$", "<msup><mi>x</mi><mn>2</mn></msup>"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert shown in str(render(text))


def test_a_formula_that_is_none_is_shown_as_written() -> None:
    assert formula("\\frac{", block=False) == "<code>\\frac{</code>"


def test_a_long_text_is_shown_plainly() -> None:
    text = "<b>" + "x" * LONGEST
    assert str(render(text)) == f'<pre class="plain">&lt;b&gt;{"x" * LONGEST}</pre>'
