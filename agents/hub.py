"""Agents fetched from the Hugging Face Hub, or from a copy of a part of it, by their addresses.

``hf://owner/name``, ``hf://owner/name@revision`` and ``hf://owner/name@revision#sha256=...``. A
revision is a branch, a tag or a commit. A commit never changes; with the SHA-256 of the weights,
no server can give others in their place.

Where it looks: in ``RLBILINEAR_HUB`` when that is set (a folder, or the http address of a mirror),
else on the server of ``HF_ENDPOINT``, huggingface_hub's own variable, by default the public Hub.
"""

import errno
import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rlbilinear.agents.document import CONFIG, WEIGHTS

SCHEME = "hf://"
README = "README.md"
FILES = (CONFIG, WEIGHTS, README)
"""All that is ever fetched: no pickle, no code."""
MIRROR = "RLBILINEAR_HUB"
"""Environment variable: a folder or an http address to use in place of the Hub."""
PUBLIC = "https://huggingface.co"

_PART = r"[A-Za-z0-9][\w.-]*"
_ADDRESS = re.compile(
    rf"hf://(?P<repository>{_PART}/{_PART})(@(?P<revision>[\w.][\w./-]*))?"
    r"(#sha256=(?P<sha256>[0-9a-f]{64}))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubError(ValueError):
    """What lies at an address is not what the address says."""


class HubAddress(NamedTuple):
    """Where an agent is on the Hub."""

    repository: str
    """owner/name"""
    revision: str = "main"
    """a branch, a tag, or a commit"""
    sha256: str | None = None
    """that the weights must have"""

    @classmethod
    def parse(cls, text: str) -> "HubAddress":
        """Read an address.

        Raises:
            ValueError: it has another form.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{text!r} is not an address on the Hub; expected hf://owner/name, "
                "hf://owner/name@revision or hf://owner/name@revision#sha256=64 hexadecimal digits"
            )
        return cls(found["repository"], found["revision"] or "main", found["sha256"])

    def __str__(self) -> str:
        pin = f"#sha256={self.sha256}" if self.sha256 else ""
        return f"{SCHEME}{self.repository}@{self.revision}{pin}"


def fetch(address: HubAddress) -> Path:
    """Return a folder with an agent's files, fetched if they are not there.

    What was fetched before and has not changed is not fetched again. A file has its name only when
    it is whole.

    Raises:
        ImportError: huggingface_hub is needed, and is not installed.
        OSError: the server cannot be reached and the agent was not fetched before, or there is no
            room on the disk.
        ValueError: no such repository or revision.
        HubError: it holds no agent, or other weights than the address says.
    """
    place = mirror_folder()
    folder = _in_folder(place, address) if place is not None else _from_server(address)
    missing = [file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()]
    if missing:
        raise HubError(
            f"{address} holds no agent of rlbilinear: it lacks {' and '.join(missing)}. Other "
            "formats, pickles above all, are not read"
        )
    if address.sha256 is not None and (found := _recorded_sha256(folder)) != address.sha256:
        raise HubError(
            f"{address} has changed: its weights now have the SHA-256 {found}. Fix the revision to "
            "the commit you mean, or leave the hash out if you trust the change"
        )
    return folder


def mirror_folder() -> Path | None:
    """Return the folder that stands for the Hub, if `MIRROR` names one.

    Raises:
        ValueError: it names neither a folder nor an http address.
    """
    named = os.environ.get(MIRROR, "")
    if not named or named.startswith(("http://", "https://")):
        return None
    if not Path(named).is_dir():
        raise ValueError(f"{MIRROR}={named}: expected a folder, or an address http(s)://...")
    return Path(named)


def endpoint() -> str:
    """Return the server's address: that of the mirror, of ``HF_ENDPOINT``, or of the public Hub."""
    return (os.environ.get(MIRROR) or os.environ.get("HF_ENDPOINT") or PUBLIC).rstrip("/")


def repository_folder(place: Path, repository: str) -> Path:
    """Return where a repository is below a folder; as in huggingface_hub's cache."""
    return place / f"models--{repository.replace('/', '--')}"


def _in_folder(place: Path, address: HubAddress) -> Path:
    repository = repository_folder(place, address.repository)
    if not repository.is_dir():
        raise ValueError(f"{place} ({MIRROR}) holds no {address.repository}")
    named = repository / "refs" / address.revision
    commit = named.read_text().strip() if named.is_file() else address.revision
    snapshot = repository / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not snapshot.is_dir():
        known = [str(ref.relative_to(repository / "refs")) for ref in _files(repository / "refs")]
        raise ValueError(f"{address}: no such revision; choose a commit or {', '.join(known)}")
    return snapshot


def _from_server(address: HubAddress) -> Path:
    hub = huggingface_hub()
    with server_errors(address):
        commit = address.revision
        if not _COMMIT.fullmatch(commit):
            commit = _resolve(address)
        return Path(
            hub.snapshot_download(
                address.repository,
                revision=commit,
                allow_patterns=list(FILES),
                endpoint=endpoint(),
            )
        )


def _resolve(address: HubAddress) -> str:
    """Return the commit of a branch or tag; without a network that of the last time, said so."""
    hub = huggingface_hub()
    try:
        api = hub.HfApi(endpoint=endpoint())
        commit = api.model_info(address.repository, revision=address.revision).sha
        assert commit is not None
        _remember(address, commit)
        return commit
    except hub.errors.HfHubHTTPError:
        raise
    except connection_errors() as error:
        kept = _ref(address)
        if not kept.is_file():
            raise OSError(
                f"cannot reach {endpoint()} for {address}, which was not fetched before: {error}"
            ) from error
        commit = kept.read_text().strip()
        warnings.warn(
            f"cannot reach {endpoint()}: {address} is the copy fetched before, commit {commit}",
            stacklevel=2,
        )
        return commit


def _ref(address: HubAddress) -> Path:
    cache = Path(huggingface_hub().constants.HF_HUB_CACHE)
    return repository_folder(cache, address.repository) / "refs" / address.revision


def _remember(address: HubAddress, commit: str) -> None:
    """Keep which commit a branch or tag names, as huggingface_hub does."""
    kept = _ref(address)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(commit)


@contextmanager
def server_errors(address: HubAddress) -> Iterator[None]:
    """Say in words what a server's error means.

    Raises:
        OSError: it cannot be reached, or refuses; or there is no room for what it sends.
        ValueError: no such repository or revision.
    """
    errors = huggingface_hub().errors
    try:
        yield
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"{endpoint()} has no repository {address.repository}, or it is private: "
            "`hf auth login` or HF_TOKEN gives access"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"{address.repository} on {endpoint()} has no revision {address.revision!r}; it has "
            f"{', '.join(_revisions(address)) or 'none'}"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as error:
        raise OSError(f"{endpoint()} did not answer for {address}: {_short(error)}") from error
    except connection_errors() as error:
        raise OSError(f"cannot reach {endpoint()} for {address}: {_short(error)}") from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        cache = huggingface_hub().constants.HF_HUB_CACHE
        raise OSError(
            f"no room on the disk for {address} in {cache}: make some, or set HF_HUB_CACHE to a "
            "folder on another disk"
        ) from error


def connection_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the http libraries that huggingface_hub uses, by its version."""
    found: list[type[Exception]] = [ConnectionError]
    for name, kind in (
        ("httpx2", "TransportError"),
        ("httpx", "TransportError"),
        ("requests", "ConnectionError"),
    ):
        try:
            found.append(getattr(__import__(name), kind))
        except ImportError:
            continue
    return tuple(found)


def huggingface_hub() -> Any:
    """Import the library of the Hub.

    Raises:
        ImportError: it is not installed; the message says how.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            "hf:// addresses need huggingface_hub: pip install 'rlbilinear[hub]'"
        ) from error
    return huggingface_hub


def _revisions(address: HubAddress) -> list[str]:
    refs = huggingface_hub().HfApi(endpoint=endpoint()).list_repo_refs(address.repository)
    return [ref.name for ref in (*refs.branches, *refs.tags)]


def _recorded_sha256(folder: Path) -> str | None:
    """Return the hash that a configuration gives; loading holds the weights against it."""
    try:
        return json.loads((folder / CONFIG).read_text())["weights"]["sha256"]
    except (ValueError, KeyError, TypeError):
        return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _short(error: Exception) -> str:
    (first, *_) = str(error).strip().splitlines() or [repr(error)]
    return first
