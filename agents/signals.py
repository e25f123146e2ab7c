"""Ending a run in good order at SIGINT or SIGTERM."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop has saved and stopped.

    Attributes:
        signal: the signal; the shell's exit code for it is 128 plus its number.
    """

    def __init__(self, signal: signal.Signals, message: str = "") -> None:
        super().__init__(message)
        self.signal = signal


class StopRequest:
    """Whether a run was asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def check(self) -> None:
        """Raise `Stopped` if it was."""
        if self.signal is not None:
            raise Stopped(self.signal)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second one has its usual effect.

    A signal that is ignored stays ignored, as SIGINT in a shell's background jobs. Only the main
    thread receives signals: in others, nothing is changed and no request is made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    now = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
    before = {number: handler for number, handler in now.items() if handler != signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _: object) -> None:
        request.signal = signal.Signals(number)
        restore()
        # not print: the signal may have interrupted a print
        os.write(2, b"\nstopping: the run is saved first; a second signal stops at once\n")

    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        restore()
