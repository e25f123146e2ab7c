"""What excites a channel, drawn: by gradient ascent, in real pictures, and what it tells of."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle as Box

from rlbilinear.probes.excitation import Ascent
from rlbilinear.probes.figures import STYLE, UNSIGNED, WIDTH
from rlbilinear.probes.patches import Patch


@rc_context(STYLE)
def excitation_figure(
    ascent: Ascent,
    patches: Sequence[Patch],
    information: Float[np.ndarray, "height width"] | None = None,
    *,
    title: str = "What excites the channel most",
) -> Figure:
    """Draw the picture found by ascent beside the real pictures that excite the channel most.

    Args:
        ascent: from `rlbilinear.probes.excitation.ascend`.
        patches: from `strongest_patches`; up to eight are drawn, with what they may depend on.
        information: from `rlbilinear.probes.information.pixel_information`.
        title: what is seen.

    Raises:
        ValueError: no patches.
    """
    if not patches:
        raise ValueError("expected at least one patch, got none")
    shown = patches[:8]
    extra = 1 + (information is not None)
    count = extra + len(shown)
    columns = min(count, 5)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, 1.2 + 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set(xticks=[], yticks=[])
    panels[0].imshow(ascent.picture.transpose(1, 2, 0), vmin=0, vmax=1)
    panels[0].set_title(f"found by ascent\n{ascent.activation:.3g}", fontsize=10)
    if information is not None:
        panels[1].imshow(information, cmap=UNSIGNED, vmin=0)
        panels[1].set_title(f"information\n0 to {information.max():.2g} nats", fontsize=10)
    for axes, patch in zip(panels[extra:], shown, strict=False):
        axes.imshow(patch.observation.transpose(1, 2, 0))
        top, left, bottom, right = patch.pixels
        box = Box((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, ec="red", lw=1.5)
        axes.add_patch(box)
        axes.set_title(f"level {patch.level}\n{patch.response:.3g}", fontsize=10)
    for axes in panels[count:]:
        axes.remove()
    figure.suptitle(title)
    text = "numbers: the activation; red: all of the picture that it can depend on"
    if information is not None:
        text += "\ninformation: what each pixel tells of the activation (yellow: most)"
    figure.supxlabel(text, fontsize=10)
    return figure
