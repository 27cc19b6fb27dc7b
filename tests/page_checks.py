"""What every page must hold for people who use a keyboard, a screen reader or a phone; and what it may ask for and complain of."""

from __future__ import annotations

from typing import Any

UNNAMED = """() => [...document.querySelectorAll('button, input, textarea, a, [role]')].filter((one) => {
  const label = one.getAttribute('aria-label') || one.getAttribute('aria-labelledby') || one.textContent.trim()
    || (one.labels && one.labels.length && one.labels[0].textContent.trim());
  return !label && one.getAttribute('role') !== 'status' && one.getAttribute('role') !== 'alert' && one.id !== 'editor-which';
}).map((one) => one.outerHTML)"""
FAINT = """() => {
  const light = (c) => { const [r, g, b] = c.match(/\\d+/g).map(Number).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = (one) => { for (; one; one = one.parentElement) { const c = getComputedStyle(one).backgroundColor; if (!c.endsWith(', 0)')) return c; } return 'rgb(255, 255, 255)'; };
  const ink = (one) => { const style = getComputedStyle(one); return one instanceof SVGElement ? style.fill : style.color; };
  return [...document.querySelectorAll('main *, header *')].filter((one) => one.checkVisibility() && one.childNodes.length && [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .map((one) => { const [a, b] = [light(ink(one)), light(back(one))].sort((x, y) => y - x); return [(a + 0.05) / (b + 0.05), one.outerHTML.slice(0, 80)]; })
    .filter(([ratio]) => ratio < 4.5);
}"""


def noted(context: Any) -> Any:
    """A new page; everything that it asks for and complains of is noted, in `asked` and `problems`."""
    page = context.new_page()
    page.set_default_timeout(120_000)  # other tests run beside
    page.asked, page.problems = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    return page


def check_readable(page: Any) -> None:
    """Every control has a name, text stands out from its ground, and nothing is wider than the window."""
    assert page.evaluate(UNNAMED) == [] and page.locator("html").get_attribute("lang") == "en"
    assert page.evaluate(FAINT) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    levels = [int(name[1]) for name in page.locator("h1, h2, h3, h4").evaluate_all("all => all.map((one) => one.tagName)")]
    assert (
        levels[:1] == [1] and levels.count(1) == 1 and all(later - earlier <= 1 for earlier, later in zip(levels, levels[1:], strict=False))
    )
    headless = "all => all.filter((one) => ![...one.querySelectorAll('th')].some((th) => th.scope === 'col')).length"
    assert page.locator("main table").evaluate_all(headless) == 0


def check_quiet(page: Any, address: str) -> None:
    """Nothing failed, and nothing was asked of another host."""
    assert page.problems == [] and all(url.startswith((address, "data:")) for url in page.asked)
