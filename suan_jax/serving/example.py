"""A request that any log can answer: to show what one looks like, and to warm up on."""

from __future__ import annotations

import itertools
from typing import Any

from suan_jax.data.vocabulary import Buckets, Encoder, HashedIds
from suan_jax.schema import OOV, Feature
from suan_jax.serving.ids import VocabularyLookup
from suan_jax.serving.request import RequestEncoder

_MOMENT = 1_700_000_000  # of the request, seconds since 1970


def example_request(requests: RequestEncoder, candidates: int = 2, events: int = 3) -> dict[str, Any]:
    """A request with so many candidates and events, of values that the log knows, as JSON has it."""

    def value(feature: Feature, place: int) -> Any:
        raw = _known(requests.encoders[feature.table], place)
        return [raw] if feature.values > 1 else raw

    def raw(group: str, place: int) -> dict[str, Any]:
        return {feature.name: value(feature, place) for feature in requests.schema.group(group)}

    dense = {name: requests.scales[name].mean for name in requests.schema.dense}
    return {
        "user": raw("profile", 0),
        "history": [
            {**raw("history", place), "time": _MOMENT - 3600 * (events - place)} for place in range(events)
        ],
        "time": _MOMENT,
        "context": {**raw("context", 0), **dense},
        "candidates": [raw("candidate", place) for place in range(candidates)],
    }


def _known(encoder: Encoder, place: int) -> Any:
    if isinstance(encoder, VocabularyLookup):
        count = len(encoder.ids)
        return next(itertools.islice(encoder.ids, place % count, None)) if count else None
    if isinstance(encoder, Buckets):
        return float(encoder.edges[place % len(encoder.edges)]) if len(encoder.edges) else 0.0
    return str(place) if isinstance(encoder, HashedIds) else OOV + 1 + place % max(encoder.size - OOV - 1, 1)
