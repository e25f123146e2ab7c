"""Agents as ONNX files, for programs without PyTorch."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rlbilinear.agents.folder import new_file
from rlbilinear.agents.network import HEADS, copied
from rlbilinear.agents.policy import AgentPolicy

if TYPE_CHECKING:
    from rlbilinear.agents.agent import Agent

INPUT, OUTPUTS = "observations", ("logits", "values")
TOLERANCE = 1e-3
"""How far outputs may be from the agent's, relative to the largest: both round in float32."""
CHECKED = 4
"""Random observations on which a written file is compared with the agent."""


class _Network(nn.Module):
    """Logits and values of uint8 images, and nothing else of the policy."""

    def __init__(self, policy: AgentPolicy) -> None:
        super().__init__()
        self.body = policy.features_extractor
        self.heads = nn.ModuleList(getattr(policy, head) for head in HEADS)

    def forward(
        self, observations: UInt8[Tensor, "n channels height width"]
    ) -> tuple[Float[Tensor, "n actions"], Float[Tensor, "n 1"]]:
        features = self.body(observations.float() / 255)
        return self.heads[0](features), self.heads[1](features)


def write_onnx(agent: "Agent", path: str | Path) -> Path:
    """Write an agent as an ONNX file, and check it; see `rlbilinear.agents.Agent.to_onnx`."""
    file = Path(path)
    if file.suffix != ".onnx":
        raise ValueError(f"expected a name that ends in .onnx, got {file}")
    if file.exists():
        raise FileExistsError(f"{file} exists; choose another name")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"no folder {file.parent}")
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("to_onnx needs: pip install 'rlbilinear[onnx]'") from error
    network = _Network(copied(agent.policy).float().cpu()).eval()
    shape = (CHECKED, *agent.config.observation_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    observations = torch.from_numpy(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, of itself and what it will drop one day
        program = torch.onnx.export(
            network,
            (observations,),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    with new_file(file) as temporary:
        program.save(str(temporary), external_data=False)
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        with torch.no_grad():
            wanted = network(observations)
        for name, found, ours in zip(
            OUTPUTS, session.run(list(OUTPUTS), {INPUT: images}), wanted, strict=True
        ):
            gap = float(np.abs(found - ours.numpy()).max())
            if not gap <= TOLERANCE * max(1.0, float(ours.abs().max())):
                raise FloatingPointError(
                    f"onnxruntime gives other {name} than the agent, by up to {gap:.2g}: "
                    f"{file} was not written"
                )
    return file
