"""Concept probes, validated causally: whether what they read is used.

Of a maze agent, by editing its weights:

    report = validate("maze-bimpala-compact", layer="block2")
    print(report.table())

Of any policy with image observations, from arrays (docs/validate.md):

    print(ask(model, ConceptData.split("goal", "map", examples, pairs)).table())

Agents, layers and concepts are given by name or as objects. The names here are those for users:
concepts and states, probes, interventions on activations, behaviour, and the validation.
"""

if __name__ != "rlbilinear.probes":
    raise ImportError("import this package as `rlbilinear.probes`, not as `probes`")

from rlbilinear.probes.behaviour import (
    Field,
    compare_fields,
    field,
    fields,
    follow,
    paired_rollouts,
    reach,
    vector_field,
)
from rlbilinear.probes.causal.concepts import CausalConcept, concept_data
from rlbilinear.probes.causal.data import ConceptData, Counterfactuals, Examples
from rlbilinear.probes.causal.games import causal_concept, causal_concepts, game_data
from rlbilinear.probes.causal.report import ask
from rlbilinear.probes.concepts import (
    CONCEPTS,
    Concept,
    cheese_position,
    cheese_presence,
    concept,
    mouse_position,
    mouse_presence,
)
from rlbilinear.probes.dataset import (
    ActivationDataset,
    Pairs,
    States,
    collect,
    counterfactual_pairs,
    label,
)
from rlbilinear.probes.finite import finite_by_layer
from rlbilinear.probes.interchange import (
    activation_differences,
    interchange_summary,
    interchange_table,
)
from rlbilinear.probes.interventions import (
    Add,
    Interchange,
    Intervention,
    Replace,
    Resample,
    Scale,
    activations,
    logits_after,
    logits_under,
)
from rlbilinear.probes.moves import (
    kl_divergence,
    log_move_probabilities,
    move_probabilities,
    total_variation,
)
from rlbilinear.probes.patches import TopActivations, played_frames, top_activations
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.reading import compare_probes, fit_probe, probe_report
from rlbilinear.probes.report import ValidationReport
from rlbilinear.probes.retargeting import cheese_maps, move_cheese, retarget
from rlbilinear.probes.study import Sizes
from rlbilinear.probes.subject import Subject, SubjectError, as_subject
from rlbilinear.probes.subspaces import Subspace, difference_subspace, random_subspace
from rlbilinear.probes.surrogate import quadratic_surrogate, surrogate_of
from rlbilinear.probes.validation import validate

__all__ = [
    "CONCEPTS",
    "ActivationDataset",
    "Add",
    "CausalConcept",
    "Concept",
    "ConceptData",
    "Counterfactuals",
    "Examples",
    "Field",
    "Interchange",
    "Intervention",
    "LinearProbe",
    "Pairs",
    "Replace",
    "Resample",
    "Scale",
    "Sizes",
    "States",
    "Subject",
    "SubjectError",
    "Subspace",
    "TopActivations",
    "ValidationReport",
    "activation_differences",
    "activations",
    "as_subject",
    "ask",
    "causal_concept",
    "causal_concepts",
    "cheese_maps",
    "cheese_position",
    "cheese_presence",
    "collect",
    "compare_fields",
    "compare_probes",
    "concept",
    "concept_data",
    "counterfactual_pairs",
    "difference_subspace",
    "field",
    "fields",
    "finite_by_layer",
    "fit_probe",
    "follow",
    "game_data",
    "interchange_summary",
    "interchange_table",
    "kl_divergence",
    "label",
    "log_move_probabilities",
    "logits_after",
    "logits_under",
    "mouse_position",
    "mouse_presence",
    "move_cheese",
    "move_probabilities",
    "paired_rollouts",
    "played_frames",
    "probe_report",
    "quadratic_surrogate",
    "random_subspace",
    "reach",
    "retarget",
    "surrogate_of",
    "top_activations",
    "total_variation",
    "validate",
    "vector_field",
]
