"""Sentences for whoever watches a job, apart from its results."""

from __future__ import annotations

import sys

from suan_jax.processes import is_first


def notice(sentence: str) -> None:
    """Prints a sentence on standard error, so that results can be piped on; of several processes once."""
    if is_first():
        print(sentence, file=sys.stderr, flush=True)
