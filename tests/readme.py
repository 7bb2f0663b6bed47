"""README.md and its code blocks, for tests that run them, and the page of results."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
RESULTS = ROOT / "notebooks" / "results" / "README.md"
PAGES = TEXT + RESULTS.read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def block(language: str, phrase: str) -> str:
    """The one block of a language that holds `phrase`."""
    (found,) = [text for text in blocks(language) if phrase in text]
    return found
