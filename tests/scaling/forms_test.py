import numpy as np
import pytest

from suan_jax.scaling import forms
from tests.scaling import planted

_THETA = {
    "power": [-1.6, -2.3, 0.3],
    "chinchilla": [0.6, -1.2, 0.34, -0.9, 0.36],
    "loops": [-1.6, -2.0, 0.3, 0.5],
    "log": [0.25, -0.02],
}


def _x(form):
    if form.name == "chinchilla":
        return planted.chinchilla()[0]
    return planted.loops()[0] if form.name == "loops" else planted.auc()[0][:, None]


@pytest.mark.smoke
@pytest.mark.parametrize("form", forms.FORMS.values(), ids=lambda form: form.name)
def test_slopes_are_those_of_the_curve(form):
    x = _x(form)
    features = form.features(x, form.units(x))
    theta = np.array([_THETA[form.name], [1.1 * value for value in _THETA[form.name]]])
    slopes = form.curve(theta, features)[1]
    for index in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[index] = 1e-6
        numeric = (form.curve(theta + step, features)[0] - form.curve(theta - step, features)[0]) / 2e-6
        np.testing.assert_allclose(slopes[:, :, index], numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("form", forms.FORMS.values(), ids=lambda form: form.name)
def test_parameters_as_written_give_the_curve(form, rising):
    x = _x(form)
    units = form.units(x)
    theta = np.array([_THETA[form.name]])
    z = form.curve(theta, form.features(x, units))[0][0]
    value = dict(zip(form.parameters, form.values(theta @ form.unscaled(units).T, rising)[0], strict=True))
    sign = -1 if rising else 1
    if form.name == "log":
        y = value["c"] + value["k"] * np.log(x[:, 0])
    elif form.name == "loops":
        y = value["E"] + sign * value["A"] * (x[:, 0] + x[:, 2] ** value["phi"] * x[:, 1]) ** -value["alpha"]
    else:
        y = value["E"] + sign * value["A"] * x[:, 0] ** -value["alpha"]
        if form.name == "chinchilla":
            y = y + sign * value["B"] * x[:, 1] ** -value["beta"]
    np.testing.assert_allclose(y, 1 - z if rising else z, rtol=1e-12)


def test_coefficients_of_fixed_exponents_are_never_negative():
    terms = np.array([[1.0, 0.5, 0.25], [3.0, 2.0, 1.0]])
    np.testing.assert_allclose(np.exp(forms.coefficients(2 + 3 * terms[0] + terms[1], terms)), [2, 3, 1])
    rising = forms.coefficients(np.array([1.0, 2.0, 3.0]), terms[:1])
    assert np.exp(rising[1]) < 0.01
