"""Progress of a training: a live line for people, scikit-learn's callbacks for tools."""

import sys
import time


class Line:
    """A line of text that is rewritten in place on a terminal, else written anew.

    Parameters
    ----------
    name : str
        Of the estimator.
    stream : file, default=None
        None is the standard output at the time of the call.
    """

    def __init__(self, name, stream=None):
        self.name, self.stream = name, stream
        self._open_line_on = None

    def write(self, text):
        """Show a text."""
        stream = sys.stdout if self.stream is None else self.stream
        line = f"[{self.name}] {text}"
        live = hasattr(stream, "isatty") and stream.isatty()
        stream.write(f"\r\x1b[2K{line}" if live else f"{line}\n")
        stream.flush()
        self._open_line_on = stream if live else None

    def finish(self):
        """End the line that is open on a terminal, however it all ended."""
        if self._open_line_on is not None:
            self._open_line_on.write("\n")
            self._open_line_on.flush()
            self._open_line_on = None


class ProgressLine(Line):
    """Epoch, losses and time left of a training."""

    def __call__(self, epoch):
        """Show an `Epoch`; never asks to stop."""
        left = epoch.seconds / epoch.number * (epoch.max_iter - epoch.number)
        text = f"epoch {epoch.number}/{epoch.max_iter}, loss = {epoch.loss:.6g}"
        if epoch.validation_loss is not None:
            text += f", validation loss = {epoch.validation_loss:.6g}"
        self.write(f"{text}, {left:.1f} s left")
        return False


class StepLine(Line):
    """Steps done and time left of a run of chains, about twenty times in all."""

    def __init__(self, name, stream=None):
        super().__init__(name, stream)
        self._started, self._shown = time.perf_counter(), 0

    def __call__(self, n_done, n_steps):
        """Show the progress of a run."""
        if n_done * 20 // n_steps > self._shown:
            self._shown = n_done * 20 // n_steps
            left = (time.perf_counter() - self._started) / n_done * (n_steps - n_done)
            self.write(f"step {n_done}/{n_steps}, {left:.1f} s left")


class CallbackBridge:
    """Reports epochs to the scikit-learn callbacks that were set on an estimator.

    Parameters
    ----------
    model : estimator
    max_iter : int
    X, y : the training data, as the user passed them
    sample_weight : array-like or None

    Attributes
    ----------
    fitted_attributes : callable or None
        Returns the attributes that make a copy of the model usable at this epoch.
    """

    def __init__(self, model, max_iter, X, y, sample_weight):
        self.model, self.fitted_attributes = model, None
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self.data = {"X": X, "y": y, "metadata": metadata}
        self.active = bool(getattr(model, "_skl_callbacks", ()))
        self.active = self.active and hasattr(model, "_init_callback_context")
        if self.active:
            self.root = model._init_callback_context(max_subtasks=max_iter)
            self.root.call_on_fit_task_begin(estimator=model, **self.data)

    def __call__(self, epoch):
        """Run the callbacks' hooks around this epoch; true if one asks to stop."""
        task = self.root.subcontext(task_name="epoch")
        task.call_on_fit_task_begin(estimator=self.model, **self.data)
        return task.call_on_fit_task_end(
            estimator=self.model, reconstruction_attributes=self.fitted_attributes, **self.data
        )

    def listen(self, theta, epoch):
        """The same, with the weights that a copy of the model would have."""
        self.fitted_attributes = lambda: {"weights_": theta.to_numpy()}
        return self(epoch)

    def finish(self):
        """Tell the callbacks that the fit has ended."""
        if self.active:
            self.root.call_on_fit_task_end(
                estimator=self.model, reconstruction_attributes=self.fitted_attributes, **self.data
            )
