"""The embedded click log, form `synthetic-v1`: endless, reproducible, and with a known best possible model.

Every label is drawn from a probability that is a function of what a model may see, so the log comes with
the logit itself. Nothing hidden enters that function: a user's hidden interests choose what the user does,
and reach a click only through those visible behaviours.

**World** (`world`). 8 departments of 8 categories of 4 subcategories. Item x is of subcategory s = x mod 256,
category c = ⌊s / 4⌋, department ⌊c / 8⌋; a hash gives its brand (8 a category) and price level (5). Half of
the catalogue is on sale on day 0, the rest arrives evenly over 112 days. ε(·) is a hash of its arguments and
the seed, uniform on [-√3, √3]. P(s) is the period of a subcategory, 6 to 36 days.

**Users** (`timeline`). Half are there on day 0, the others join later. Their behaviours come in sessions,
each about one of eight interests. An interest may be replaced once, and is 15 times stronger in the first
fifth of its period, so it returns after hundreds of behaviours. Half of the sessions precede an impression.
Candidates come from recent behaviours, from any behaviour, from siblings of recent ones, from what is
popular, and at random. A click becomes a behaviour one second after its impression. The first 95 days are
train, the next 4 validation and the last 13 test: 80.5 %, 4.4 % and 15.0 % of the impressions.

**Click** (`click`). For candidate x with brand β at time t, profile and context as named, and behaviours e
of age τ = t - t(e) > 0, P(click) = 1 / (1 + exp(-z)), where z is the sum of

    (a)  -2.2 + .45 ε(x) + .4 ε(x, age, gender) + .3 ε(⌊hour / 4⌋, c) + .25 ε(scenario, c) - .15 position
         + .3 (ε(age, c) + ε(gender, c) + ε(city, s)) + .3 ε(price sensitivity, price)
         + .5 ε(age) / (1 + weeks since x arrived), the last term only for items that came after day 0

    (b)  1.7 S / (1 + S) + 2.8 R / (.4 + D), where
         S = Σ m(e) g(e) v(e) K(τ; h_short(age)),     over e of category c
         R = Σ m(e) g(e) v(e) K(τ; h_long(activity)), over e of category c
         D = Σ v(e) K(τ; h_long(activity)),           over e of x's department

    (c)  2.2 B / (.3 + A), where, over e of subcategory s with y = τ / P(s) - 1 in [-1/2, 1/2),
         B = Σ v'(e) (1 - 12 y²) and A = Σ v'(e)

    (d)  1.8 X / (.25 + Y) - 1.8 F / (3 + F), where
         X = Σ K(τ₂; 1 day) ε(c(e₁), c(e₂), c) and Y = Σ K(τ₂; 1 day), over steps (e₁, e₂)
         F = Σ K(τ; 1 day),                    over e of category c after the last buy of c

with K(τ; h) = 1 / (1 + (τ / h)²), which is one half at age h; weights v and v' of the action (`click.MATCH`,
`click.RETURN`) and half-lives h (`click.SHORT`, `click.LONG`); steps, which are neighbours in time among
the behaviours of x's department, of different categories;
m(e) = .35 + .65 [e is of s] + .5 [e is of brand β] + [e is of item x]; and satiation
g(e) = .1 if e is of s and not later than the last buy of s, else 1.

So (a) rewards memorising, the more the larger the catalogue; (b) asks which behaviours match, and when;
(c) reaches back a whole period; (d), and g in (b), depend on a behaviour GIVEN others, and on their order.

**Truth.** `unlimited` is z. `at_length` is the same formula on the last `max_len` behaviours alone: sums
over fewer e, no step whose e₁ is cut off. It equals z where the history is no longer than that. Elsewhere it
is a strong reference, not a bound: what is cut off can in part be guessed from what is left.

**The same numbers everywhere.** Uniforms are halves of raw Philox words with key (seed, block), a stream
that NumPy keeps fixed; hashes are integers; floats meet only operations that IEEE 754 defines to the last
bit (sums run in a fixed order, and `world.exp` is made of them); sorts are stable or of plain values.
"""

from suan_jax.data.synthetic.log import FORM, SyntheticLog

__all__ = ["FORM", "SyntheticLog"]
