"""Films written frame by frame: H.264 in mp4, at the rate of what they were made from."""

from __future__ import annotations

from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from stepsight.errors import UserError
from stepsight.predicting.film.reading import ITU709, av

QUALITY = "14"  # constant rate factor of x264: colours are read off, so that 18, "visually
# lossless", is not enough


class FilmWriter(AbstractContextManager["FilmWriter"]):
    """An mp4 of frames of one size at `rate` frames a second, upright and without rotation.

    Players want even sides: an odd one repeats its last row or column. It appears under its name
    once it is whole.
    """

    def __init__(self, path: str | Path, rate: Fraction) -> None:
        self.path, self.rate = Path(path), rate
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._container: Any = None
        self._stream: Any = None

    def add(self, picture: Tensor) -> None:
        """A frame, uint8 "3 h w". Raises UserError where its size is not that of the first."""
        down, right = (side % 2 for side in picture.shape[-2:])
        even = F.pad(picture[None].float(), (0, right, 0, down), mode="replicate")[0].byte()
        stream = self._stream or self._begin(even)
        if (stream.height, stream.width) != even.shape[-2:]:
            raise UserError(f"{self.path}: a frame of another size than the first.")
        frame = av().VideoFrame.from_ndarray(
            even.permute(1, 2, 0).contiguous().cpu().numpy(), format="rgb24"
        )
        frame = frame.reformat(format="yuv420p", src_colorspace=ITU709, dst_colorspace=ITU709)
        frame.colorspace, frame.color_range = ITU709, 1
        self._container.mux(stream.encode(frame))

    def _begin(self, first: Tensor) -> Any:
        self._container = av().open(str(self._part), "w", format="mp4")
        self._stream = stream = self._container.add_stream("libx264", rate=self.rate)
        stream.height, stream.width = first.shape[-2:]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": QUALITY}
        # stated, so that no player has to guess: BT.709, limited range
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = ITU709
        context.color_range = 1
        return stream

    def __exit__(self, kind: object, *_: object) -> None:
        if self._container is None:
            return
        if kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)
