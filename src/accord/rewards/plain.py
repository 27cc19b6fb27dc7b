r"""LaTeX, markdown and Unicode as the plain text that numbers are read from: "$1\,000\frac{1}{2}\%$" is "1,000 1/2 %"."""

from __future__ import annotations

import re

from accord.rewards.stated import braced

_SUPERSCRIPTS = {ord(sign): digit for sign, digit in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+", strict=True)}
_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5", "⅙": "1/6", "⅚": "5/6",
    "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10",
}  # fmt: skip
_SIGNS = str.maketrans({"−": "-", "﹣": "-", "－": "-", "‐": "-", "‑": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "⁄": "/"}) | {
    ord("—"): " ; ", ord("％"): "%", ord("º"): "°", ord("\u00a0"): " ", ord("\u202f"): " ", ord("\u2009"): " ",
}  # fmt: skip
_COMMANDS = {
    "times": "*", "cdot": "*", "div": "/", "approx": "≈", "approxeq": "≈", "simeq": "≈", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥",
    "lt": "<", "gt": ">", "ne": "≠", "neq": "≠", "pm": "±", "circ": "°", "degree": "°", "pounds": "£", "euro": "€", "quad": " ", "qquad": " ",
    "left": "", "right": "", "displaystyle": "", "boxed": "", "fbox": "", "cents": "¢", "therefore": " ", "implies": " ; ", "Rightarrow": " ; ",
    "colon": ":",
}  # fmt: skip
_TEXTS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname|emph|rm|bf)\s*(?=\{)")


def plain_text(text: str) -> str:
    """The text with LaTeX's numbers, signs and spaces as plain characters; what has no plain form stays."""
    text = re.sub(r"</?[A-Za-z]+>", " ", text.translate(_SIGNS))
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda match: "^(" + match.group().translate(_SUPERSCRIPTS) + ")", text)
    for sign, fraction in _VULGAR.items():
        text = text.replace(sign, f" {fraction}")
    text = re.sub(r"(?<=\d)\s*–\s*(?=\d)", " to ", text).replace("–", "-")
    text = text.replace("\\$", "\x00")
    text = re.sub(r"\$\$|\\[\[\]()]", " ", text)
    text = re.sub(r"(?<!\\)\$(?=\S)([^$\n]*?)(?<=\S)\$(?!\d)", lambda match: f" {match.group(1)} ", text)
    text = text.replace("\x00", "$").replace("\\%", "%").replace("\\#", "#").replace("\\&", "&")
    text = re.sub(r"(?<=\d)(?:\{,\}|\\[,!;:]|~|\\ )(?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"\\[,!;: ]|~(?=\S)|(?<=\S)~", " ", text)
    text = _fractions(text)
    text = re.sub(r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ\b|\\degree\b", "°", text)
    text = _unwrap(text)
    text = re.sub(r"\\([A-Za-z]+)", lambda match: _COMMANDS.get(match.group(1), match.group()), text)
    text = re.sub(r"\^\s*\{([^{}]*)\}", r"^(\1)", text)
    text = re.sub(r"(?<![\\A-Za-z_^])\{([^{}]*)\}", r"\1", text)
    return re.sub(r"\*\*|__|`", "", text)


def _unwrap(text: str) -> str:
    """\\text{...} as its content with a space on either side."""
    while match := _TEXTS.search(text):
        inside = braced(text, match.end())
        if inside is None:
            return text[: match.start()] + text[match.end() :]
        text = f"{text[: match.start()]} {inside} {text[match.end() + len(inside) + 2 :]}"
    return text


def _fractions(text: str) -> str:
    r"""\frac{3}{4}, \frac34 and \dfrac 3 4 as 3/4; other fractions stay. A whole number before one makes a mixed number."""
    number = r"\s*(?:\{\s*([+-]?\d[\d,]*(?:\.\d+)?)\s*\}|(\d))"

    def plain(match: re.Match[str]) -> str:
        top, bottom = match.group(2) or match.group(3), match.group(4) or match.group(5)
        sign = "-" if top.startswith("-") != bottom.startswith("-") else ""
        return f"{match.group(1)}{' ' if match.group(1) else ''}{sign}{top.lstrip('+-')}/{bottom.lstrip('+-')}"

    return re.sub(r"(\d?)\s*\\[dtc]?frac" + number + number, plain, text)
