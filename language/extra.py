"""What the extra ``language`` installs, and the error without it."""

from importlib.util import find_spec

PACKAGES = ("transformers", "tokenizers", "gguf", "accelerate")
INSTALL = 'pip install "rlbilinear[language]"'


def require() -> None:
    """Refuse to start without the extra.

    Raises:
        ImportError: a package is missing; the message has the one command that installs it.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ImportError(f"language models need {', '.join(missing)}; install them by: {INSTALL}")
