"""HD1K (Kondermann et al. 2016): driving sequences with sparse flow in KITTI's encoding.

`<root>/hd1k_input/image_2/000000_0010.png` (sequence, frame; possibly grey) with
`<root>/hd1k_flow_gt/flow_occ/000000_0010.png`, and `<root>/hd1k_challenge/image_2/` without truth.
"""

from __future__ import annotations

from itertools import groupby, pairwise

from stepsight.data.decoding.formats import read_kitti_flow
from stepsight.data.readers.flow.pairs import Pair, PairSource, neighbours, number_of


class Hd1k(PairSource):
    """Sparse flow in pixels to the next frame of the sequence; its last frame is left out.

    The numbers of a sequence rise by a constant step, the smallest: what it skips is missing.
    Splits: train (and all, the same); test has pairs of images and no truth.
    """

    marker = "hd1k_input/image_2/*.png"
    recalled = True
    splits = {"train": "hd1k_input"}
    unscored = {"test": "hd1k_challenge"}
    decode_flow = staticmethod(read_kitti_flow)
    published = {"train": 1047}  # 1083 frames of 36 sequences; recalled, not read

    def pairs(self, folder: str) -> list[Pair]:
        frames = sorted((self.root / folder / "image_2").glob("*.png"))
        pairs = []
        for _, sequence in groupby(frames, lambda path: path.stem.rpartition("_")[0]):
            images = list(sequence)
            steps = [later - number for number, later in pairwise(map(number_of, images))]
            for image, second in neighbours(images, min(steps, default=1)):
                flow = self.root / "hd1k_flow_gt" / "flow_occ" / image.name
                pairs.append(Pair(image.stem, image, second, flow))
        return pairs
