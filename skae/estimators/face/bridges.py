"""What scikit-learn's callbacks are told of a fit."""

from collections.abc import Callable


class CallbackBridge:
    """Reports epochs to the scikit-learn callbacks that were set on an estimator.

    X, y and the weights are as the user passed them. ``attributes_of(weights)`` returns what makes
    a copy of the model usable, by attributes' names, from arrays by the names of the engine.
    """

    def __init__(self, model, max_iter, X, y, sample_weight):
        # A number that depends on the rows is not known yet.
        max_iter = None if isinstance(max_iter, str) else max_iter
        self.model, self.fitted_attributes = model, None
        self.attributes_of: Callable[[dict], dict] = lambda weights: {"weights_": weights}
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self.data = {"X": X, "y": y, "metadata": metadata}
        self.active = bool(getattr(model, "_skl_callbacks", ()))
        self.active = self.active and hasattr(model, "_init_callback_context")
        if self.active:
            self.root = model._init_callback_context(max_subtasks=max_iter)
            self.root.call_on_fit_task_begin(estimator=model, **self.data)

    def __call__(self, name):
        """Run the callbacks' hooks around a task that is done; true if one asks to stop."""
        task = self.root.subcontext(task_name=name)
        task.call_on_fit_task_begin(estimator=self.model, **self.data)
        return task.call_on_fit_task_end(
            estimator=self.model, reconstruction_attributes=self.fitted_attributes, **self.data
        )

    def listen(self, theta, epoch):
        """The same, with the weights that a copy of the model would have."""
        self.fitted_attributes = lambda: self.attributes_of(theta.to_numpy())
        return self("epoch")

    def report(self, name, attributes):
        """Tell of a task without epochs, such as a layer, after which a copy is usable."""
        if self.active:
            self.fitted_attributes = lambda: attributes
            self(name)

    def finish(self):
        """Tell the callbacks that the fit has ended."""
        if self.active:
            self.root.call_on_fit_task_end(
                estimator=self.model, reconstruction_attributes=self.fitted_attributes, **self.data
            )
