"""The list of deliberate faults follows the code."""

from pathlib import Path

import pytest
from deliberate import FAULTS, locate

import skae

PACKAGE = Path(skae.__file__).parent
ROOT = Path(__file__).parents[2]


def test_faults_are_many_and_spread():
    assert len(FAULTS) >= 40
    assert len({fault.place for fault in FAULTS}) >= 10
    assert len({(fault.place, fault.snippet, fault.replacement) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("place", sorted({fault.place for fault in FAULTS}))
def test_faults_can_be_made(place):
    for fault in FAULTS:
        if fault.place == place:
            # A snippet that has changed takes its fault along; code that does not even compile
            # would be noticed by anything.
            file = locate(fault, PACKAGE)
            source = file.read_text().replace(fault.snippet, fault.replacement)
            compile(source, str(file), "exec")
            files = [test.partition("::")[0] for test in fault.tests]
            assert all((ROOT / test).exists() for test in files), files
