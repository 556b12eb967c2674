"""Lines that tell how far a training, or a run of chains, has come."""

import contextlib
import sys
import time


class Line:
    """A line of text that is rewritten in place on a terminal, else written anew.

    ``name`` is that of the estimator. Without ``stream`` it is the standard output at the time of
    the call.
    """

    def __init__(self, name, stream=None):
        self.name, self.stream = name, stream
        self._open_line_on = None

    def write(self, text):
        """Show a text."""
        stream = sys.stdout if self.stream is None else self.stream
        if stream is None:  # a process without a console
            return
        line = f"[{self.name}] {text}"
        try:
            live = hasattr(stream, "isatty") and stream.isatty()
            stream.write(f"\r\x1b[2K{line}" if live else f"{line}\n")
            stream.flush()
        except (OSError, ValueError):
            # A terminal that was closed, a broken pipe or a full disk ends no training.
            live = False
        self._open_line_on = stream if live else None

    def finish(self):
        """End the line that is open on a terminal, however it all ended."""
        if self._open_line_on is not None:
            with contextlib.suppress(OSError, ValueError):
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
