"""What a model wrote, as HTML that shows it and never runs it: markdown, code and formulas.

Raw HTML is text, links and images are shown with their address and lead nowhere, formulas are MathML of known elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any
from xml.etree import ElementTree

from latex2mathml import converter
from markdown_it import MarkdownIt
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin

LONGEST = 50_000
"""Characters; a longer text is shown as it is, without markdown."""
MATHML = frozenset(
    "math mrow mi mn mo mtext mspace ms mfrac msqrt mroot mstyle merror mpadded mphantom mfenced menclose msub msup msubsup munder mover "
    "munderover mmultiscripts mtable mtr mtd semantics".split()
)
ATTRIBUTES = frozenset(
    "display mathvariant stretchy fence separator form accent accentunder linethickness columnalign rowspacing columnspacing width height "
    "depth lspace rspace minsize maxsize scriptlevel displaystyle".split()
)


def render(text: str) -> Markup:
    """The text as safe HTML."""
    if len(text) > LONGEST:
        return Markup('<pre class="plain">{}</pre>').format(text)
    return Markup(_markdown().render(text))


@cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "linkify": False}).enable(["table", "strikethrough"])
    # A price is no formula: dollars beside digits or spaces are left alone.
    parser.use(
        dollarmath_plugin,
        allow_digits=False,
        allow_space=False,
        double_inline=True,
        allow_labels=False,
        renderer=lambda content, options: formula(content, block=options["display_mode"]),
    )
    parser.add_render_rule("image", _image)
    parser.add_render_rule("link_open", _link_open)
    parser.add_render_rule("link_close", _link_close)
    return parser


def _image(self: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    return str(Markup('<span class="address">[image: {} {}]</span>').format(token.content, token.attrGet("src") or ""))


def _link_open(self: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    env.setdefault("addresses", []).append(tokens[index].attrGet("href") or "")
    return '<span class="link">'


def _link_close(self: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    return str(Markup('</span> <span class="address">({})</span>').format(env["addresses"].pop()))


def formula(content: str, *, block: bool) -> str:
    """A formula as MathML; as code where it is none.

    Args:
        block: True on a line of its own. False within the text.
    """
    try:
        root = ElementTree.fromstring(converter.convert(content, display="block" if block else "inline"))
        return ElementTree.tostring(_known(root), encoding="unicode")
    except Exception:  # whatever the library cannot read is shown as it was written
        return str(Markup("<code>{}</code>").format(content))


def _known(element: ElementTree.Element) -> ElementTree.Element:
    """The element with what is known to show mathematics and nothing else.

    Raises:
        ValueError: on any other element.
    """
    name = element.tag.rpartition("}")[2]
    if name not in MATHML:
        raise ValueError(f"<{name}> is no formula")
    found = ElementTree.Element(name, {key: value for key, value in element.attrib.items() if key in ATTRIBUTES})
    found.text, found.tail = element.text, element.tail
    found.extend(_known(child) for child in element)
    return found


def turns(messages: Sequence[Any]) -> list[dict[str, str]]:
    """Messages with their rendered content, as JSON-able dicts."""
    return [{"role": message.role, "html": str(render(message.content)), "text": message.content} for message in messages]
