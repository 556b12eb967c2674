"""What is around every method that learns, and in which order."""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar, cast

from skae.estimators.face import scikit_learn
from skae.estimators.face.outcomes import unchanged_by_errors
from skae.estimators.face.processes import shared_by_processes
from skae.estimators.face.sessions import session_of

F = TypeVar("F", bound=Callable[..., Any])


def learns(*, callbacks: bool = False, batches: Callable | None = None) -> Callable[[F], F]:
    """Decorate a method that learns with what belongs around it.

    From the outside in, it runs in

    - `unchanged_by_errors`: by what the others note in the model they undo what they did;
    - `shared_by_processes`: all processes have to agree on what they call;
    - with ``callbacks``, the `session_of` them, and scikit-learn's;
    - ``batches``, a decorator: what is read once is read by nothing else.

    Outside of all this is what every public method has, `skae.estimators.face.parameters.AROUND`.
    """

    def decorate(fit: F) -> F:
        called = fit if batches is None else batches(fit)
        called = scikit_learn.with_callbacks(called) if callbacks else called

        @functools.wraps(called)
        def guarded(self, X, *args, **options):
            with (
                unchanged_by_errors(self),
                shared_by_processes(self, fit, X, args, options),
                session_of(self, X, *args, **options) if callbacks else nullcontext(),
            ):
                return called(self, X, *args, **options)

        return cast(F, guarded)

    return decorate
