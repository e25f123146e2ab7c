"""The document ``config.json`` of an agent: written from one, and read only if all is in order."""

import hashlib
import json
from typing import Any, NamedTuple

from rlbilinear.agents import module_spec
from rlbilinear.agents.network import AgentConfig, check_outputs, layer_name, on_meta
from rlbilinear.agents.policy import AgentPolicy

FORMAT, VERSION = "rlbilinear-agent", 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.md"
SEAL = "sha256"
"""Field that holds the SHA-256 of all others, so that no change to them is missed."""

_FIELDS: dict[str, Any] = {
    "format": str,
    "version": int,
    "game": str,
    "network": {
        "architecture": str,
        "architecture_kwargs": dict,
        "observation_shape": [int],
        "actions": int,
        "structure": [{"layer": str, "type": str | None, "arguments": dict}],
    },
    "weights": {"file": str, "sha256": str, "dtype": str, "parameters": int},
    "edits": [str],
    "made": dict,
    "sha256": str,
}
"""Each field's kind: a type, ``[what each item is]``, or the fields inside it."""

_MADE: dict[str, Any] = {
    "options": dict,
    "hardware": dict,
    "versions": dict,
    "scores": dict | None,
    "command": str,
    "frames": int,
    "from": dict | str,
}
"""The fields of ``made`` that others read, where they are there."""

_KINDS = {
    str: "text",
    int: "a whole number",
    dict: "an object",
    str | None: "text or null",
    dict | None: "an object or null",
    dict | str: "an object or text",
}


class Document(NamedTuple):
    """What a document says, after its check."""

    config: AgentConfig
    structure: list[module_spec.Entry]
    """replacements that turn the architecture's network into this one, layers by their names"""
    network: str
    """all about the network as the file of weights holds it too, see `canonical`"""
    weights: dict[str, Any]
    """file, sha256, dtype and parameters"""


def network_of(policy: AgentPolicy, config: AgentConfig) -> dict[str, Any]:
    """Describe a network so that it can be built again.

    Raises:
        ValueError: a layer of a kind that cannot be stored, or sizes that contradict the
            configuration.
    """
    rebuilt = on_meta(config)
    entries = module_spec.differences(rebuilt, policy)
    check_outputs(rebuilt, config)
    return {
        "architecture": config.architecture,
        "architecture_kwargs": config.architecture_kwargs,
        "observation_shape": config.observation_shape,
        "actions": config.actions,
        "structure": [{**entry, "layer": layer_name(entry["layer"])} for entry in entries],
    }


def canonical(network: dict[str, Any]) -> str:
    """Return a network's description as the text that the file of weights holds too."""
    return json.dumps(network, sort_keys=True)


def written(
    config: AgentConfig, network: dict[str, Any], weights: dict[str, Any]
) -> dict[str, Any]:
    """Return the document of an agent."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "game": config.game,
        "network": network,
        "weights": weights,
        "edits": config.edits,
        "made": config.made,
    }
    return sealed(json.loads(json.dumps(document, allow_nan=False)))


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document with its `SEAL`."""
    text = json.dumps({**document, SEAL: None}, sort_keys=True)
    return {**document, SEAL: hashlib.sha256(text.encode()).hexdigest()}


def read(text: str) -> Document:
    """Read a document.

    Raises:
        ValueError: it is not JSON, of another format or version, or a field is missing, unknown,
            of another kind, or says what there is not. The field is named.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from error
    found = (document.get("format"), document.get("version")) if isinstance(document, dict) else ()
    if found != (FORMAT, VERSION):
        raise ValueError(f"expected {FORMAT} version {VERSION}, found {found}")
    _check("", {SEAL: "", **document}, _FIELDS)
    for name, kind in _MADE.items():
        if name in document["made"]:
            _check(f"made.{name}", document["made"][name], kind)
    network, file = document["network"], document["weights"]["file"]
    if file != WEIGHTS:
        raise ValueError(f"weights.file must be {WEIGHTS}, got {file!r}")
    config = AgentConfig(
        architecture=network["architecture"],
        architecture_kwargs=network["architecture_kwargs"],
        game=document["game"],
        observation_shape=tuple(network["observation_shape"]),
        actions=network["actions"],
        made=document["made"],
        edits=tuple(document["edits"]),
    )
    if SEAL in document and document != sealed(document):  # older documents have none
        raise ValueError(f"it was altered: it does not fit its {SEAL}")
    return Document(config, network["structure"], canonical(network), document["weights"])


def _check(where: str, value: object, kind: Any) -> None:
    """Raise a ValueError unless a value is of its kind, and all that is in it."""
    if isinstance(kind, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, got {value!r}")
        for index, item in enumerate(value):
            _check(f"{where}[{index}]", item, kind[0])
    elif isinstance(kind, dict):
        _check(where, value, dict)
        assert isinstance(value, dict)
        for what, names in (("lacks", kind.keys() - value), ("has unknown", value.keys() - kind)):
            if names:
                fields = f"field{'s' * (len(names) > 1)} {', '.join(sorted(names))}"
                raise ValueError(f"{where or 'the document'} {what} {fields}")
        for name, inner in kind.items():
            _check(f"{where}.{name}".removeprefix("."), value[name], inner)
    elif not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where} must be {_KINDS[kind]}, got {value!r}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
