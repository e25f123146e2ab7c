"""Run a command: read its options, turn errors into exit codes, stop at signals.

A command ends with 0 when it is done, 2 when it was used wrongly, 1 when it failed, and 128 plus
the signal's number when it was interrupted: 130 by Ctrl-C, 143 by SIGTERM.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    NamedTuple,
    NoReturn,
    TypeVar,
    get_args,
    get_type_hints,
)

import tyro

FAILED, BAD_USAGE = 1, 2

LARGEST_SEED = 2**31 - 1
"""That the simulator takes."""

Options = TypeVar("Options")
Item = TypeVar("Item")


class AtLeast(NamedTuple):
    """In the annotation of an option: the smallest number that it may be."""

    minimum: int


class AtMost(NamedTuple):
    """In the annotation of an option: the largest number that it may be."""

    maximum: int


Count = Annotated[int, AtLeast(1)]
Seed = Annotated[int, AtLeast(0), AtMost(LARGEST_SEED)]
Scale = Annotated[float, AtLeast(0)]
Several = Annotated[
    tuple[Item, ...],
    tyro.conf.arg(help_behavior_hint=lambda said: f"(default: {said})" if said else "(optional)"),
]
"""Of an option that is empty by default, which tyro would show as ``(default: )``."""


class Failed(Exception):
    """The command did its work, and the result is a failure; the message says which."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Python raises KeyboardInterrupt for SIGINT: what is half-written is removed."""

    signal = signal.SIGTERM


@dataclass(frozen=True)
class Command(Generic[Options]):
    """A command line: call it to run.

    Attributes:
        options: dataclass of the options.
        work: does the work.
        description: shown by ``--help``.
        resume: what to tell the user whose command was interrupted.
    """

    options: type[Options]
    work: Callable[[Options], None]
    description: str | None
    resume: Callable[[Options], str] = lambda _: "nothing was written"

    def __call__(self, args: Sequence[str] | None = None, prog: str | None = None) -> None:
        """Run the command.

        Args:
            args: the command line after the program's name; that of this process when None.
            prog: the program's name in messages.

        Raises:
            SystemExit: with the exit code, unless the work was done.
        """
        prog = prog or Path(sys.argv[0]).name
        with exit_codes(prog):
            options = tyro.cli(self.options, prog=prog, description=self.description, args=args)
            check_options(options)
            try:
                self.work(options)
            except KeyboardInterrupt as stopped:
                print(f"{str(stopped) or 'stopped'}; {self.resume(options)}", file=sys.stderr)
                sys.exit(_code(stopped))


def check_options(options: object) -> None:
    """Refuse what an option cannot be, alone or in a tuple, or in the options inside of these.

    Numbers that their annotations exclude, infinity where they have a least value, and paths with
    the ``~`` that a shell replaces in ``--out ~/runs``, but not in ``--out=~/runs``.

    Raises:
        ValueError: there is one; the option is named.
    """
    for name, annotation in get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, name)
        option = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, tuple) else (value,):
            if is_dataclass(each):
                check_options(each)
            if isinstance(each, Path) and each.parts[:1] == ("~",):
                raise ValueError(f"{option}: write it without =, or without ~; got {each}")
            for bound in _bounds(annotation):
                if each is not None and not _keeps(each, bound):
                    kind = "more" if isinstance(bound, AtLeast) else "less"
                    raise ValueError(f"{option}: expected {bound[0]} or {kind}, got {each}")


def _keeps(number: float, bound: AtLeast | AtMost) -> bool:
    if isinstance(bound, AtMost):
        return number <= bound.maximum
    return bound.minimum <= number < float("inf")  # nor is NaN


def _bounds(annotation: object) -> Iterator[AtLeast | AtMost]:
    for part in get_args(annotation):
        if isinstance(part, AtLeast | AtMost):
            yield part
        else:
            yield from _bounds(part)


@contextmanager
def exit_codes(prog: str) -> Iterator[None]:
    """Turn what ends a command into a message and an exit code.

    The library raises ValueError itself for arguments it does not accept, and subclasses of it for
    data: a checkpoint that was altered, text that cannot be decoded. Any error that is not named
    here is a fault of the program, and shows its traceback.

    Raises:
        SystemExit: instead of the error.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a result is not lost for want of a character
    try:
        with _sigterm_raised(), _errors_of_threads_named(prog):
            yield
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except KeyboardInterrupt as stopped:
        print("stopped", file=sys.stderr)
        sys.exit(_code(stopped))
    except FileExistsError as error:
        _end(prog, error, BAD_USAGE)
    except (Failed, OSError, FloatingPointError, ImportError, MemoryError) as error:
        _end(prog, error, FAILED)
    except ValueError as error:
        _end(prog, error, BAD_USAGE if type(error) is ValueError else FAILED)


def _end(prog: str, error: Exception, code: int) -> NoReturn:
    print(f"{prog}: {error}", file=sys.stderr)
    sys.exit(code)


def _code(stopped: KeyboardInterrupt) -> int:
    return 128 + getattr(stopped, "signal", signal.SIGINT)


@contextmanager
def _errors_of_threads_named(prog: str) -> Iterator[None]:
    """Say what a thread could not write without its traceback: TensorBoard writes in threads.

    Whoever waits for the thread gets the error too.
    """

    def say(args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, OSError):
            print(f"{prog}: {args.exc_value}", file=sys.stderr)
        else:
            threading.__excepthook__(args)

    before, threading.excepthook = threading.excepthook, say
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Raise `Terminated` at SIGTERM, where it would end the process; only in the main thread."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def terminate(*_: Any) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
