"""Agreement of learning rules is drawn as the diagnostic returns it."""

import numpy as np
import pytest

from skae import RBM
from skae.diagnostics import gradient_agreement
from skae.plots import GradientAgreementDisplay


@pytest.mark.parametrize("measure", ["cosine", "sign_agreement"])
def test_gradient_agreement_is_drawn_against_the_size_of_the_weights(X, measure):
    rbm = RBM(3, persistent=False, max_iter=2, random_state=0).fit(X)
    settings = dict(n_gibbs_steps=(1, 3), scales=(0.5, 2), n_particles=50, growth=0.1)
    display = GradientAgreementDisplay.from_estimator(
        rbm, X, **settings, random_state=1, measure=measure
    )
    agreement = gradient_agreement(rbm, X, **settings, random_state=1)
    # One line for each rule, in the order of the diagnostic.
    assert tuple(display.lines_) == agreement.rules
    for line, values in zip(display.lines_.values(), getattr(agreement, measure), strict=True):
        # Arguments reach the diagnostic, and its arrays the axes.
        np.testing.assert_array_equal(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), agreement.mean_weight)
    # The other measure can be drawn from what is stored, without computing again.
    other = {"cosine": "sign_agreement", "sign_agreement": "cosine"}[measure]
    drawn = display.plot(measure=other).lines_["cd_3"].get_ydata()
    np.testing.assert_array_equal(drawn, getattr(agreement, other)[4])


def test_an_unknown_measure_is_named():
    display = GradientAgreementDisplay(("pcd",), [1.0], [[1.0]], [[1.0]])
    # A wrong name would otherwise end as an AttributeError, or draw another attribute.
    with pytest.raises(ValueError, match="measure='rules' must be one of 'cosine'"):
        display.plot(measure="rules")
