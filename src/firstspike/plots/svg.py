"""Figures as SVG that follows the colour scheme of the page or the system, light or dark.

matplotlib writes every colour as a number. Here each of ours becomes a variable of CSS with that
number as its default, `var(--ink, #222222)`, and boxes lose their white. What stands in a page
takes the page's variables; a file of its own brings both schemes along.
"""

from __future__ import annotations

import io
import re
from html import escape
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from firstspike._files import atomic_write
from firstspike.plots._style import CYCLE, FAINT, INK, MUTED, ORANGE

# colour as drawn -> variable, and its value on dark pages
_THEME = {
    INK: ("ink", "#e6e8eb"),
    "#000000": ("ink", "#e6e8eb"),
    MUTED: ("muted", "#9aa3ad"),
    FAINT: ("line", "#333a43"),
    "#ffffff": ("card", "#1d2127"),
    ORANGE: ("mark", "#f0b429"),
    **{
        colour: (f"series-{index}", dark)
        for index, (colour, dark) in enumerate(
            zip(
                CYCLE,
                ("#4ea6e6", "#ff8b52", "#35c79a", "#dd9cbd", "#8fd0f5", "#c9b458", "#c4c9cf"),
            ),
            start=1,
        )
    },
}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def variables(dark: bool) -> str:
    """Declarations of all variables, for a rule of CSS: `:root { ... }`."""
    of = {name: value if dark else light for light, (name, value) in _THEME.items()}
    of["ink"] = of["ink"] if dark else INK
    return " ".join(f"--{name}: {value};" for name, value in of.items())


def inline_svg(figure: Figure, title: str = "") -> str:
    """A figure as an `<svg>` element for an HTML page that sets `variables`.

    Args:
        figure: what a plot returned; its text stays text.
        title: what the figure shows, for screen readers; figures in one page need different ones.

    Raises:
        TypeError: if it is not a matplotlib figure.

    >>> from firstspike.plots import plot_accuracy_over_time
    >>> inline_svg(plot_accuracy_over_time({"TTFS": [0.1, 0.9]})[0], "accuracy")[:44]
    '<svg role="img" aria-label="accuracy" class='
    """
    if not isinstance(figure, Figure):
        raise TypeError(
            f"`figure` must be a matplotlib figure, got {type(figure).__name__}. Plots return "
            "(figure, axes); pass the figure."
        )
    buffer = io.BytesIO()
    # the salt makes the same figure the same bytes, and names in it different from other figures'
    with rc_context({"svg.hashsalt": f"firstspike {title}", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for colour, (name, _) in _THEME.items():
        text = text.replace(colour.lower(), f"var(--{name}, {colour.lower()})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", rf"font: \1px {_FONT}", text)
    text = re.sub(r"font-family: [^;\"]*", f"font-family: {_FONT}", text)
    rules = f"svg.figure text {{ fill: var(--ink, {INK}) }} svg.figure * {{"
    text = text.replace('<style type="text/css">*{', f"<style>{rules}")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" class="figure" ', 1)


def save_svg(figure: Figure, path: str | Path, title: str = "") -> Path:
    """Write a figure as an SVG file that follows the system's colour scheme.

    Args:
        figure: what a plot returned.
        path: file to create or replace.
        title: what it shows, for screen readers.

    Raises:
        TypeError: if it is not a matplotlib figure.
    """
    text = inline_svg(figure, title)
    style = (
        f"<style>:root {{ {variables(dark=False)} }} "
        f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(dark=True)} }} }}</style>"
    )
    opened = text.index(">") + 1
    with atomic_write(path, "w") as file:
        file.write(text[:opened] + style + text[opened:] + "\n")
    return Path(path)
