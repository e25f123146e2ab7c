"""TensorBoard events of runs and reports that torch's own summaries do not cover."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.image.metadata import create_summary_metadata
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

LONGEST = 60
"""Letters of a setting that is a text; longer ones are nothing to compare runs by."""


class Events(TensorBoardOutputFormat):
    """Stable-Baselines3's way to TensorBoard, for runs that go on where they were stopped.

    Args:
        folder: of the event files.
        frames: already done. What the folder has of later ones, from before the run was stopped
            and taken up again at its last checkpoint, TensorBoard leaves out.
    """

    def __init__(self, folder: str | Path, *, frames: int = 0) -> None:
        # Stable-Baselines3's own __init__ does only this, with a writer that leaves nothing out.
        self.writer = SummaryWriter(str(folder), purge_step=frames + 1)
        self._is_closed = False


def writer_of(logger: Logger) -> SummaryWriter | None:
    """Return the writer behind a Stable-Baselines3 logger, None where there is none."""
    formats = (f for f in logger.output_formats if isinstance(f, TensorBoardOutputFormat))
    return next((events.writer for events in formats), None)


def picture(tag: str, encoded: bytes, caption: str) -> Summary:
    """Wrap an encoded picture, which may be animated, for TensorBoard to show under its caption."""
    width, height = Image.open(io.BytesIO(encoded)).size
    tensor = TensorProto(dtype="DT_STRING")
    tensor.tensor_shape.dim.add(size=3)
    tensor.string_val.extend([str(width).encode(), str(height).encode(), encoded])
    metadata = create_summary_metadata(display_name=caption, description="")
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def comparison(
    settings: Mapping[str, Any], metrics: Iterable[str], *, first: Iterable[str] = ()
) -> tuple[Summary, Summary, Summary]:
    """Return what the tab HPARAMS compares runs by: to be written, and when a run begins and ends.

    Args:
        settings: of the run. TensorBoard takes their names from one run, whichever it reads first:
            runs to be compared have the same.
        metrics: tags of scalars, of which it shows the last values.
        first: settings to be shown before the others; it has columns for five at first.
    """
    compared, begin, end = hparams(dict(flat(settings)), dict.fromkeys(metrics, 0))
    content = compared.value[0].metadata.plugin_data
    plugin = HParamsPluginData.FromString(content.content)
    for info in plugin.experiment.hparam_infos:
        info.differs = info.name in first  # nothing but the order is made of it
    content.content = plugin.SerializeToString()
    return compared, begin, end


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | float]]:
    """List settings by dotted name, as numbers and short texts that TensorBoard can compare."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield prefix + name, value
        elif len(text := value if isinstance(value, str) else json.dumps(value)) <= LONGEST:
            yield prefix + name, text
