"""Sentences for whoever watches a job, apart from its results."""

from __future__ import annotations

import sys


def notice(sentence: str) -> None:
    """Prints a sentence on standard error, so that results can be piped on."""
    print(sentence, file=sys.stderr, flush=True)
