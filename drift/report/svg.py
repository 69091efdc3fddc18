"""Figures inside the page: text is text, in the page's font, and colors are those of its light."""

import io
import re
from collections.abc import Mapping
from html import escape

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from drift.report.styles import RunStyle

# The page's, of what is no run; without a color of its own something has that of the text.
GRAYS = {"#000000": "currentColor", "#404040": "currentColor", "#e6e6e6": "var(--rule)"}
GRAYS |= {"#808080": "var(--faint)", "#595959": "var(--faint)"}
# What a page does not need, as Matplotlib 3.7 and 3.11 write it: its font is that of the text.
SHORTER = {
    r"-?\d+\.\d{3,}(?=[^<]*>)": lambda number: f"{float(number[0]):.1f}".removesuffix(".0"),
    r'font: (\d+ )?(\S+px)[^;"]*': lambda font: (
        f"font-weight: {font[1] or 400}; font-size: {font[2]}"
    ),
    r' font-family[^;"]*;?| transform="rotate\(-0[^"]*"|xlink:|\n *(?=<)': "",
    r"\s*\n": " ",
    r'<g id="((?:band )?run-[^"]*)"': r'<g class="\1"',
}


def inline(figure: Figure, name: str, alt: str, colors: Mapping[str, str]) -> str:
    """The panels of a figure that was drawn, as an element of a page.

    What has a gid, ``band run-3``, is a group of these classes. `colors` are the page's, by those
    of the file. Ids begin with the figure's `name`, and the same figure is the same text.
    """
    low, high, scale = 0.0, figure.bbox.height, 72 / figure.dpi
    # The page has one legend for all runs, and one note; published curves have their own.
    for legend in figure.legends if not name.startswith("published_") else ():
        high = legend.get_window_extent().y0
        legend.set_visible(False)
    if (note := figure._supxlabel) and note.get_text():
        low = note.get_window_extent().y1
        note.set_visible(False)
    view = 0, figure.bbox.height - high, figure.bbox.width, high - low
    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set_visible(False)
    for one in figure.findobj(lambda one: str(one.get_gid()).startswith("band")):
        one.set_visible(True)  # the page says when
    with matplotlib.style.context({"svg.fonttype": "none"}), io.StringIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue()
    text = text[text.index('<g id="figure') : text.rindex("</svg>")]
    for i, used in enumerate(dict.fromkeys(re.findall(r"#([mp]\w{10})\b", text))):
        # What is drawn many times has its look once.
        if look := re.search(rf'href="#{used}"[^>]*( style="[^"]*")', text):
            text = re.sub(rf'(href="#{used}"[^>]*) style="[^"]*"', r"\1", text)
            text = re.sub(rf'(id="{used}" d="[^"]*")[^>/]*', rf"\1{look[1]}", text)
        text = text.replace(used, f"{name}-{i}")
    colors = GRAYS | {file.lower(): css for file, css in colors.items()}
    text = re.sub("#[0-9a-f]{6}", lambda color: colors.get(color[0], color[0]), text)
    for pattern, instead in SHORTER.items():
        text = re.sub(pattern, instead, text)
    text = re.sub(rf' id="(?!{name}-)[^"]*"', "", text)
    view = " ".join(f"{scale * number:.1f}" for number in view)
    return (
        f'<svg class="figure" viewBox="{view}" role="img" aria-label="{escape(alt)}" '
        f'fill="currentColor" stroke-linejoin="round">{text}</svg>'
    )


def mark(style: RunStyle) -> str:
    """A run's line and marker, for its name in a table, a text or a legend of the page."""
    marker = MarkerStyle(style.marker)
    shape = marker.get_path().transformed(marker.get_transform())
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    path = "".join(
        letters[code] + " ".join("" if code == 79 else f"{number:.2f}" for number in points)
        for points, code in shape.iter_segments()
    )
    dash = {"-": "", "--": ' stroke-dasharray="5 2.5"', "-.": ' stroke-dasharray="5 2 1 2"'}
    return (
        f'<svg class="mark run-{style.index}" viewBox="-12 -5 24 10" aria-hidden="true" '
        f'style="color:{style.css}"><path d="M-12 0H12" stroke="currentColor" '
        f'stroke-width="{style.width:g}"{dash[style.dash]}/>'
        f'<path d="{path}" transform="scale(6 -6)" fill="currentColor"/></svg>'
    )
