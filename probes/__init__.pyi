from .behaviour import (
    Field,
    compare_fields,
    field,
    fields,
    follow,
    paired_rollouts,
    reach,
    vector_field,
)
from .causal.concepts import CausalConcept, concept_data
from .causal.data import ConceptData, Counterfactuals, Examples
from .causal.games import causal_concept, causal_concepts, game_data
from .causal.report import ask
from .concepts import (
    CONCEPTS,
    Concept,
    cheese_position,
    cheese_presence,
    concept,
    mouse_position,
    mouse_presence,
)
from .dataset import (
    ActivationDataset,
    Pairs,
    States,
    collect,
    counterfactual_pairs,
    label,
)
from .finite import finite_by_layer
from .interchange import (
    activation_differences,
    interchange_summary,
    interchange_table,
)
from .interventions import (
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
from .moves import (
    kl_divergence,
    log_move_probabilities,
    move_probabilities,
    total_variation,
)
from .patches import TopActivations, played_frames, top_activations
from .probe import LinearProbe
from .reading import compare_probes, fit_probe, probe_report
from .report import ValidationReport
from .retargeting import cheese_maps, move_cheese, retarget
from .study import Sizes
from .subject import Subject, SubjectError, as_subject
from .subspaces import Subspace, difference_subspace, random_subspace
from .surrogate import quadratic_surrogate, surrogate_of
from .validation import validate

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
