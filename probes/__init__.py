"""Concept probes, validated causally: whether what they read is used.

Of a maze agent, by editing its weights:

    report = validate("maze-bimpala-compact", layer="block2")
    print(report.table())

Of any policy with image observations, from arrays (docs/validate.md):

    print(ask(model, ConceptData.split("goal", "map", examples, pairs)).table())

Agents, layers and concepts are given by name or as objects. The names here are those for users:
concepts and states, probes, interventions on activations, behaviour, and the validation. Each is
loaded when it is first asked for; ``__init__.pyi`` says from where.
"""

if __name__ != "rlbilinear.probes":
    raise ImportError("import this package as `rlbilinear.probes`, not as `probes`")

import lazy_loader

import rlbilinear.envs  # noqa: F401  (before Stable-Baselines3: suppresses gym's notice)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
