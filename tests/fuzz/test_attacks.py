"""A few random attacks on each family, the same ones every time; `run.py` tries thousands."""

import pytest
from fuzz.attacks import CASES, attacks
from fuzz.properties import check
from hypothesis import HealthCheck, Phase, given, settings
from registry import families


@pytest.mark.parametrize("case", families(CASES), ids=str)
def test_what_holds_of_every_attack(case):
    @settings(
        max_examples=3,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(attacks(case))
    def every(attack):
        check(attack)

    every()
