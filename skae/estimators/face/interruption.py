"""Ctrl-C: pressed once it ends a training, whose model is kept; pressed again, what goes on then.

A search trains one model after the other. Were every Ctrl-C to end one training alone, nobody could
stop the search, and it would compare models of a few epochs with others of many.
"""

import math
import time

# Seconds in which a training follows on an interrupted one by itself; people take longer.
_SOON = 2.0
_last = {"ended": -math.inf}


def follows_on_interrupted() -> bool:
    """Whether a training that begins now follows on one that was interrupted just before."""
    return time.monotonic() - _last["ended"] < _SOON


def note_interruption(follows: bool) -> None:
    """Note that a training was interrupted; raise KeyboardInterrupt if the one before was, too."""
    if follows:
        forget_interruption()
        raise KeyboardInterrupt
    _last["ended"] = time.monotonic()


def forget_interruption() -> None:
    """Let the next interruption be a first one."""
    _last["ended"] = -math.inf
