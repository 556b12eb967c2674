"""What fits have in common is computed once, and by itself a fit has nothing in common."""

import numpy as np
import pytest

from skae.engine.optimisation.sharing import content, once, shared


def test_once_among_fits_that_run_side_by_side():
    calls, found = [], {}

    def compute(key):
        return once(lambda: key, lambda: calls.append(key) or object())

    assert compute("a") is not compute("a")
    with shared(found):
        one = compute("a")
        assert compute("a") is one
        assert compute("b") is not one
        assert compute(None) is not compute(None)
    with shared(found):  # another fit, beside the first
        assert compute("a") is one
    with shared({}):
        assert compute("a") is not one
    assert calls == ["a", "a", "a", "b", None, None, "a"]


def test_nobody_is_asked_for_a_key_by_himself():
    def key():
        raise AssertionError("nothing to compare it to")

    assert once(key, lambda: 3) == 3


def test_what_fails_is_not_kept():
    def fail():
        raise ArithmeticError

    with shared({}):
        with pytest.raises(ArithmeticError):
            once(lambda: "a", fail)
        assert once(lambda: "a", lambda: 3) == 3


def test_content_tells_arrays_apart(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    others = [array + 1e-15, array.reshape(3, 2), array.astype(np.float32), array.view(np.int64)]
    np.save(tmp_path / "rows.npy", array)
    with shared({}):
        assert content(array) == content(array.copy()) == content(np.asfortranarray(array))
        assert len({content(other) for other in (array, *others)}) == 5
        assert content(np.load(tmp_path / "rows.npy", mmap_mode="r")) is None
        assert content(None) is None
        assert content(array.astype(object)) is None
        assert content(array.astype(np.longdouble)) is None
    assert content(array) is None  # nobody is there to have it in common


def test_content_compares_all_bits():
    """Also those beyond the few entries that tell most arrays apart, and of what equals nothing."""
    array = np.zeros((100, 50))
    array[3, 3] = np.nan
    with shared({}):
        known = content(array)
        assert content(array.copy()) is known
        for row, column, value in ((1, 1, 5e-324), (1, 1, -0.0), (99, 48, 1.0), (3, 3, 0.0)):
            other = array.copy()
            other[row, column] = value
            assert content(other) is not known
            assert content(other) is content(other.copy())


def test_content_stays_as_it_was():
    """Whatever becomes of the array that it was of."""
    array = np.arange(6.0)
    with shared({}):
        known = content(array)
        array += 1
        assert content(array) is not known
        assert content(np.arange(6.0)) is known
        np.testing.assert_array_equal(known.array, np.arange(6.0))
