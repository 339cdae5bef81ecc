"""The page of `zett inspect`: it loads nothing, runs nothing, and is legible on a phone."""

import itertools
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

from zett.inspect.page import page


class Checker(HTMLParser):
    """Collects what a page loads or runs."""

    def __init__(self):
        super().__init__()
        self.tags, self.loads = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset") or name.startswith("on")]


def test_the_page_is_self_contained_and_escaped(everything):
    html = page(everything)
    checker = Checker()
    checker.feed(html)
    assert checker.loads == [] and not {"script", "img", "link", "iframe", "i"} & set(checker.tags)
    assert "&lt;script&gt;" in html and "prefers-color-scheme: dark" in html and "http" not in html
    plots = html.split("<svg")[1:]
    assert len(plots) == 8  # each for wide screens and for phones
    for plot in plots:
        ElementTree.fromstring("<svg" + plot.split("</svg>")[0] + "</svg>")  # well-formed
    assert checker.tags.count("title") - 1 == sum(plot.count("<title>") for plot in plots) > 30


def test_plots_for_phones_are_legible(everything):
    """Drawn about as wide as a phone is, so that text keeps its size; it is cut nowhere and touches no other text."""
    html = page(everything)
    assert "initial-scale=1" in html and "@media (max-width: 40rem)" in html
    narrow = html.split('<div class="narrow"><svg')[1:]
    assert len(narrow) == 4
    for plot in narrow:
        svg = ElementTree.fromstring("<svg" + plot.split("</svg>")[0] + "</svg>")
        across, height = map(float, svg.get("viewBox").split()[2:])
        assert across < 400
        rows: dict[float, list[tuple[float, float]]] = {}
        for text in svg.iter("text"):
            x, y, size = float(text.get("x")), float(text.get("y")), 6.5 * len(text.text)
            begin = x - size * {"middle": 0.5, "end": 1}[text.get("text-anchor")]
            assert begin > -1 and begin + size < across + 1 and 8 < y < height
            rows.setdefault(y, []).append((begin, begin + size))
        for row in rows.values():
            assert all(a[1] < b[0] for a, b in itertools.pairwise(sorted(row)))
