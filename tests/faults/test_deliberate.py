"""The list of deliberate faults follows the code."""

from pathlib import Path

import pytest
from deliberate import FAULTS, apply

import skae

PACKAGE = Path(skae.__file__).parent
ROOT = Path(__file__).parents[2]


def test_faults_are_many_and_spread():
    assert len(FAULTS) >= 40
    assert len({fault.file for fault in FAULTS}) >= 20
    assert len({(fault.file, fault.snippet, fault.replacement) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("file", sorted({fault.file for fault in FAULTS}))
def test_faults_can_be_applied(file):
    source = (PACKAGE / file).read_text()
    for fault in FAULTS:
        if fault.file == file:
            # A snippet that has changed takes its fault along; code that does not even compile
            # would be noticed by anything.
            compile(apply(fault, source), file, "exec")
            files = [test.partition("::")[0] for test in fault.tests]
            assert all((ROOT / test).exists() for test in files), files
