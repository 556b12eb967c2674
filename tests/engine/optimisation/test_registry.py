"""One mechanism for all parts that users choose by a name."""

import pytest

from skae._validation import Registered
from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.networks.corruptions import CORRUPTIONS
from skae.engine.networks.penalties import CONTRACTIONS, SPARSITY_PENALTIES
from skae.engine.networks.units import UNITS
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.parameters import Registry
from skae.engine.optimisation.schedules import SCHEDULES

REGISTRIES = {
    "corruptions": CORRUPTIONS,
    "activations": ACTIVATIONS,
    "contractions": CONTRACTIONS,
    "sparsity penalties": SPARSITY_PENALTIES,
    "units": UNITS,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
}


class Named:
    """An object."""

    name = "named"
    summary = "what users read"


def doubled(x):
    """Twice as much.

    More text.
    """
    return 2 * x


def test_a_part_is_known_by_its_name():
    registry = Registry()
    # A decorator returns what it decorates.
    assert registry.register(Named) is Named
    assert registry.register(doubled) is doubled
    assert registry == {"named": Named, "doubled": doubled}
    assert registry.names == '"named", "doubled"'
    # The summary, or the first line of the documentation.
    assert registry.summaries == '- "named": what users read.\n- "doubled": Twice as much.'


def test_names_are_taken_once():
    registry = Registry()
    registry.register(Named)
    # Twice the same class, as by a cell of a notebook that is run again, is the same part.
    registry.register(Named)
    other = type("Other", (), {"name": "named", "summary": ""})
    with pytest.raises(ValueError, match="'named' is already the name of"):
        registry.register(other)
    assert registry["named"] is Named


def test_what_is_registered_later_is_legal_and_documented(monkeypatch):
    legal = Registered(CORRUPTIONS)
    assert not legal.is_satisfied_by("named")
    monkeypatch.setitem(CORRUPTIONS, "named", Named)
    # Constraints that were made before know it, and so do their messages.
    assert legal.is_satisfied_by("named")
    assert "named" in str(legal)


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_part_says_what_it_is(kind):
    registry = REGISTRIES[kind]
    assert isinstance(registry, Registry)
    for line in registry.summaries.splitlines():
        # A line of a list, one sentence.
        assert line.startswith('- "')
        assert line.endswith(".")
        assert not line.endswith("..")
        assert len(line.split(": ", 1)[1]) > 5
