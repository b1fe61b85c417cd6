"""Reports as the tests read them: text, headings and plots."""

import re
import xml.etree.ElementTree as ET


def text_of(html: str) -> str:
    """Return what is to be read, in one line, a bar between the pieces."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s*(<[^>]+>\s*)+", "|", body).replace("\N{NO-BREAK SPACE}", " ")


def titles(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


def plots(html: str) -> dict[str, ET.Element]:
    found = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    roots = [ET.fromstring(one.replace("xlink:", "")) for one in found]
    return {root.attrib["aria-label"]: root for root in roots}


def words(plot: ET.Element) -> list[str]:
    texts = (element.text or "" for element in plot.iter() if element.tag.endswith("text"))
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in texts]
