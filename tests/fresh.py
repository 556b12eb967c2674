"""A process of its own for what may not be done in that of the tests, or has to be done in two.

It is started once, since importing torch takes seconds, and waits for more.
"""

from joblib.externals.loky import get_reusable_executor


def in_fresh_process(function, *arguments):
    """What a function returns there; it is pickled, so that it has to be known by name there."""
    executor = get_reusable_executor(max_workers=1, timeout=600)
    return executor.submit(function, *arguments).result(timeout=300)


def result_of(script):
    """What a script leaves as ``result``."""
    names = {}
    exec(script, names)
    return names["result"]


def fit_of_a_model(model, X, y):
    """The model, which has learned."""
    return model.fit(X, y)
