"""What a seed fixes for ever: the catalogue, its effects, and the part of the logit without history."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

DEPARTMENTS, CATEGORIES, SUBCATEGORIES = 8, 64, 256  # 8 categories a department, 4 subcategories a category
BRANDS_PER_CATEGORY, PRICES = 8, 5
DAYS, DAY = 112, 86_400
START = 1_672_617_600  # Monday 2 January 2023, 00:00 UTC
PROFILE = {"age": 6, "gender": 2, "city": 4, "activity": 4, "price_sensitivity": 3}
CONTEXT = {"hour": 24, "scenario": 3, "position": 4}
ACTIONS = ("view", "click", "favourite", "cart", "buy")
VIEW, CLICK, FAVOURITE, CART, BUY = range(5)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SQRT3 = 1.7320508075688772


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the logit's parts; zero drops a part. The frozen form is the defaults."""

    bias: float = -2.2
    item: float = 0.45
    item_segment: float = 0.4
    hour: float = 0.3
    scenario: float = 0.25
    position: float = 0.15
    profile: float = 0.3
    price: float = 0.3
    fresh: float = 0.5
    short: float = 1.7
    long: float = 2.8
    back: float = 2.2
    chain: float = 1.8
    fatigue: float = 1.8
    satiation: float = 0.9


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014); a bijection of uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _hash(seed: int, tag: int, *keys: np.ndarray) -> np.ndarray:
    state = _mix(np.array([seed], np.uint64) + np.uint64(tag) * _mix(np.array([_GOLDEN])))
    for key in keys:
        state = _mix(state ^ ((np.asarray(key).astype(np.uint64) + np.uint64(1)) * _GOLDEN))
    return state


def uniform(seed: int, tag: int, *keys: np.ndarray) -> np.ndarray:
    """A hash of (seed, tag, keys) as float64 in [0, 1); keys are integer arrays that broadcast."""
    return (_hash(seed, tag, *keys) >> np.uint64(11)) * 2.0**-53


def effect(seed: int, tag: int, *keys: np.ndarray) -> np.ndarray:
    """ε: a hashed effect, uniform on [-√3, √3], so of mean 0 and variance 1."""
    return (2.0 * uniform(seed, tag, *keys) - 1.0) * _SQRT3


def exp(x: np.ndarray) -> np.ndarray:
    """e^x for |x| < 700 from IEEE's exact operations alone, so equal on every CPU (libraries' is not)."""
    n = np.rint(x * 1.4426950408889634)
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    s = np.ones_like(r)
    for k in range(13, 0, -1):
        s = s * r / k + 1.0
    return np.ldexp(s, n.astype(np.int32))


@dataclasses.dataclass(frozen=True)
class World:
    """The catalogue and the effects of one seed; its memory does not grow with the number of items.

    Attributes:
      seed: seed of every hash.
      items: items in the catalogue.
      weights: weights of the logit's parts.
    """

    seed: int
    items: int
    weights: Weights = Weights()

    def _table(self, tag: int, *sizes: int) -> np.ndarray:
        return effect(self.seed, tag, *np.ix_(*(np.arange(size) for size in sizes)))

    @functools.cached_property
    def popular(self) -> np.ndarray:
        """(256,) subcategories, the most popular first."""
        return np.argsort(uniform(self.seed, 1, np.arange(SUBCATEGORIES)), kind="stable")

    @functools.cached_property
    def period(self) -> np.ndarray:
        """(256,) seconds after which an interest in a subcategory returns: 6 to 36 days."""
        return np.floor((6.0 + 30.0 * uniform(self.seed, 2, np.arange(SUBCATEGORIES))) * DAY)

    @functools.cached_property
    def follow(self) -> np.ndarray:
        """(64, 64) effect, on a candidate's category, of a step a -> b inside its department, at 8a + b."""
        return self._table(3, CATEGORIES, 64)

    @functools.cached_property
    def _effects(self) -> dict[str, np.ndarray]:
        return {
            "hour": self._table(10, 6, CATEGORIES),
            "scenario": self._table(11, CONTEXT["scenario"], CATEGORIES),
            "age": self._table(12, PROFILE["age"], CATEGORIES),
            "gender": self._table(13, PROFILE["gender"], CATEGORIES),
            "city": self._table(14, PROFILE["city"], SUBCATEGORIES),
            "price": self._table(15, PROFILE["price_sensitivity"], PRICES),
            "fresh": self._table(16, PROFILE["age"]),
        }

    def subcategory(self, item: np.ndarray) -> np.ndarray:
        """The item's subcategory s; its category is s // 4, its department s // 32."""
        return item & SUBCATEGORIES - 1

    def brand_and_price(self, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The item's brand and price level; brands belong to a category, low ones have the most items."""
        bits = _hash(self.seed, 4, item)
        u, v = (bits >> np.uint64(32)) * 2.0**-32, (bits & np.uint64(0xFFFFFFFF)) * 2.0**-32
        first = self.subcategory(item) // 4 * BRANDS_PER_CATEGORY
        return first + (u * u * BRANDS_PER_CATEGORY).astype(np.int64), (v * PRICES).astype(np.int64)

    def on_sale(self, time: np.ndarray) -> np.ndarray:
        """Items of each subcategory that have arrived by `time`, in seconds of the log."""
        each = self.items // SUBCATEGORIES
        return each // 2 + (each - each // 2) * np.minimum(time, DAYS * DAY - 1) // (DAYS * DAY)

    def freshness(self, item: np.ndarray, time: np.ndarray) -> np.ndarray:
        """1 / (1 + weeks since the item arrived), 0 for items that were there at the start."""
        each = self.items // SUBCATEGORIES
        late = item // SUBCATEGORIES - each // 2
        arrival = -(-(late + 1) * (DAYS * DAY) // (each - each // 2))
        return np.where(late < 0, 0.0, 1.0 / (1.0 + np.maximum(time - arrival, 0) / (7.0 * DAY)))

    def draw_item(self, sub: np.ndarray, time: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """An item of `sub` on sale at `time`, from two uniforms.

        Three draws in four take the r-th oldest item with a probability falling as r^(-3/4) (Zipf's law,
        early arrivals first, as preferential attachment gives); one in four takes the r-th newest likewise.
        """
        n = self.on_sale(time)
        r = (n * ((v * v) * (v * v))).astype(np.int64)
        return np.where(u < 0.75, r, n - 1 - r) * SUBCATEGORIES + sub

    def base_logit(
        self,
        profile: dict[str, np.ndarray],
        context: dict[str, np.ndarray],
        item: np.ndarray,
        price: np.ndarray,
        time: np.ndarray,
    ) -> np.ndarray:
        """Part (a): the logit of impressions (n,) without their history; all columns are per impression."""
        w, table = self.weights, self._effects
        sub = self.subcategory(item)
        cat = sub // 4
        segment = profile["age"] * PROFILE["gender"] + profile["gender"]
        z = w.bias + w.item * effect(self.seed, 20, item)
        z = z + w.item_segment * effect(self.seed, 21, item, segment)
        z = z + w.hour * table["hour"][context["hour"] // 4, cat]
        z = z + w.scenario * table["scenario"][context["scenario"], cat]
        z = z - w.position * context["position"]
        taste = table["age"][profile["age"], cat] + table["gender"][profile["gender"], cat]
        z = z + w.profile * (taste + table["city"][profile["city"], sub])
        z = z + w.price * table["price"][profile["price_sensitivity"], price]
        return z + w.fresh * self.freshness(item, time) * table["fresh"][profile["age"]]
