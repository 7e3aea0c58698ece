"""DensePipeline: from pictures to depth, flow, masks, classes or normals.

Opens a checkpoint, takes a user's pictures in any of their usual forms, and hands them on as
batches (`batches`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self, Unpack, overload

import torch

from stepsight import checkpoint
from stepsight.averages import Weights
from stepsight.coding import saved_model
from stepsight.execution.config import Precision
from stepsight.execution.precision import DTYPES, lowered, lowered_to, resolved
from stepsight.pipeline.batches import BatchPipeline
from stepsight.pipeline.budget import check_budget
from stepsight.pipeline.calling import (
    NAMES,
    Beside,
    CallOptions,
    Device,
    DType,
    are_several,
    check_weights,
    device_of,
    one_by_one,
    precision_of,
    refuse_unknown,
)
from stepsight.pipeline.config import Profile, Which
from stepsight.pipeline.inputs import single
from stepsight.tasks.merging import merge_rules as merge_rules
from stepsight.types import Batch, Prediction

AT_ONCE = 32  # pictures of a list that are in memory, at their own sizes, at a time,
PIXELS = 1 << 24  # unless they have more pixels together


class DensePipeline(BatchPipeline):
    """A trained backbone with everything needed to use it on pictures.

        pipeline = DensePipeline.from_pretrained("runs/default-0001")
        depth = pipeline("photo.jpg", task="depth")
        first, second = pipeline(["a.jpg", "b.png"], task="depth", size=256)

    Copies that sample in another way (`sampling`) share its weights.
    """

    source: checkpoint.Checkpoint | None = None  # that it was opened from

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | checkpoint.Checkpoint | None = None,
        device: Device = "auto",
        dtype: DType | None = None,
        weights: Weights = "ema",
        precision: Precision = "auto",
        profile: Which = "published",
        allow_download: bool = False,
    ) -> Self:
        """Open a run folder (its best checkpoint, else its last), a step folder, a folder or tar of
        `save_pretrained`, a name on the hub such as user/name, or an open checkpoint, of which
        nothing is verified twice. Without any: the small one that comes with stepsight, which knows
        procedural worlds, and no photographs.

        device: "auto" is a CUDA GPU, else an Apple one ("mps"), else the CPU.
        dtype: that network and codec compute in, "float32", "bfloat16", "float16" or torch's own;
        the same as precision "float32", "bf16", "fp16" (`execution.precision`). Without either:
        what the run asked for, as it means on this device.
        weights: "ema", averaged over training, or "raw", as they are being trained; the uncertainty
        of these is not calibrated, which was done with the average.
        profile: "published": answer as the code that a checkpoint from elsewhere was published with
        does (`pipeline.config`); of others the two are the same.
        allow_download: fetch a name from the hub; without it only what was fetched before is found.
        Raises CheckpointError if it is missing, unfinished, damaged or another model's; UserError
        for a dtype that is none.
        """
        precision = precision_of(dtype, precision)
        if isinstance(path, checkpoint.Checkpoint):
            saved = path
        else:
            place = checkpoint.PACKAGED if path is None else path
            saved = checkpoint.read(checkpoint.local(place, allow_download), lazy=True)
        made = cls(**saved_model(saved, device_of(device), weights, precision))
        made.weights, made.source = weights, saved
        made.asked = saved.config.training.precision if precision == "auto" else precision
        made.published = Profile.of(saved.meta.get("profile"))
        return made.profiled(profile)

    def save_pretrained(
        self, path: str | Path, *, dtype: DType | None = None, licence: str = ""
    ) -> Path:
        """Write all that this pipeline is as a folder, or as one file where `path` ends in .tar:
        weights, settings, VAE, and a card (README.md) that says what it was trained on and how it
        scored. `from_pretrained` answers from it with equal bits. Returns the path.

        dtype: that weights are stored in, "float16" for half the size; default: as they are.
        licence: for the card, as the hub calls it: "apache-2.0".
        Raises UserError if `path` is there already, or for weights that were changed after they
        had been rounded for use.
        """
        from stepsight.travelling.saving import Travelling, save

        names = ("net", "config", "sizes", "statistics", "codec", "chosen", "fitted", "metric")
        file = checkpoint.RAW if self.weights == "raw" else checkpoint.BACKBONE
        model = Travelling(**{n: getattr(self, n) for n in names}, source=self.source, file=file)
        stored = None if dtype is None else DTYPES[precision_of(dtype)]
        return save(model, Path(path), stored, licence)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = True,
        dtype: DType | None = None,
        licence: str = "",
        message: str = "Add a checkpoint of stepsight",
    ) -> str:
        """Put what `save_pretrained` writes onto the hub as `repo`, "user/name", which is made if
        it is not there; returns its address. private: whether a new one is seen by nobody else.

        Raises CheckpointError if the hub does not take it.
        """
        with TemporaryDirectory(prefix="stepsight-") as folder:
            saved = self.save_pretrained(Path(folder, "saved"), dtype=dtype, licence=licence)
            return checkpoint.push(saved, repo, private, message)

    def to(self, device: Device | DType | None = None, dtype: DType | None = None) -> Self:
        """Move network and codec, and compute in another dtype from now on: `.to("cuda")`,
        `.to("bfloat16")`, `.to("mps", torch.float16)`. Copies share the weights, and move with
        them. Returns itself.

        Raises UserError for weights that were rounded to another dtype before.
        """
        if isinstance(device, torch.dtype) or device in NAMES:
            device, dtype = None, device  # type: ignore[assignment]
        there = self.device if device is None else device_of(device)  # type: ignore[arg-type]
        if dtype is not None:
            asked = precision_of(dtype)
            check_weights(lowered_to(self.net), asked)
            self.asked = asked
        self.net.to(there)
        lowered(self.net, resolved(self.asked, there))
        self.codec.for_use(there, self.asked if dtype is not None else None)
        self.graphs.clear()  # which read the memory that the weights were in
        return self

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, image: list[Any] | tuple[Any, ...], task: str = ..., **how: Unpack[CallOptions]
    ) -> list[Prediction]: ...

    @overload
    def __call__(self, image: Any, task: str = ..., **how: Unpack[CallOptions]) -> Prediction: ...

    @torch.inference_mode()
    def __call__(
        self,
        image: Any,
        task: str = "depth",
        *,
        second: Any = None,
        mask: Any = None,
        class_id: int | Literal["null"] | Any = None,
        nfe: int | None = None,
        members: int | None = None,
        temperature: float | None = None,
        views: str | None = None,
        sampler: str | None = None,
        seed: int = 0,
        key: str = "image",
        budget: str | None = None,
        sweep: str | Path | None = None,
        tolerance: float | None = None,
        size: int | None = None,
        **unknown: Any,
    ) -> Prediction | list[Prediction]:
        """Predict for an image of any size: a path, a PIL image, an array "h w 3" of uint8, or a
        tensor "3 h w" of uint8 or of floats in [0, 1], on any device.

        A list of them, or a tensor "b 3 h w", is answered by a list: what is seen at the same size
        passes the network together, and each answer is what the image alone would get.

        second: the next frame (flow). mask: the visible part of the object, bool "h w" or a path
        to a mask image, white on black (amodal). class_id: what to generate (image), "null" for no
        class; the picture given lends its shape alone. All three are lists where images are; one
        class may be that of all.
        nfe, members, temperature, views: default to
        what the run chose for the task (`usual`); other numbers of members start from zeros if it
        is one, from the diffusion's own noise if several, whose spread is the uncertainty.
        size: pixels of the longer side of what the network sees, rounded to what it divides by;
        without it the area that it was trained at, whatever the image's.
        budget: "16nfe", "50gflop" or "200ms" per image, in place of nfe, members, size and sampler:
        what the sweep (a sweep.csv; default: the run's own) says is best for it.
        tolerance: stop adding members once the merge's standard error is that small (`adaptive`),
        in the unit of the task's uncertainty; `members` is then the most (default: the sweep's).
        Returns a Prediction on the image's own grid ("1 c h w"), with `picture` filled in.
        Raises UserError for a task the model lacks, an input the task needs, or a budget that no
        sweep can plan; of several images the message names the place.
        """
        refuse_unknown(unknown, [*CallOptions.__annotations__])
        chosen = self.task(task)
        asked = {"nfe": nfe, "members": members, "temperature": temperature, "views": views}
        check_budget(budget, sweep, **asked, sampler=sampler, size=size)
        if budget is None:
            if tolerance is not None and members is None:
                members = max(self.config.evaluation.sweep_members)
            setting = self.setting(task, nfe, members, temperature, views)
            pipeline = self.sampling(sampler=sampler).with_setting(setting).sampling(views=views)
            pipeline = pipeline if size is None else pipeline.at(size)
        else:
            setting = self.plan(task, budget, sweep)
            pipeline = self.planned(task, setting)
        how: dict[str, Any] = {"nfe": setting.nfe, "members": setting.members, "seed": seed}
        how["tolerance"] = tolerance
        given = Beside(second, mask, class_id, key)
        if are_several(image):
            return [*pipeline._answers(one_by_one(image, chosen, given), task, how)]
        batch = single(image, chosen, **given._asdict())
        return next(iter(pipeline._answers([batch], task, how)))

    def _answers(
        self, batches: Iterable[Batch], task: str, how: dict[str, Any]
    ) -> Iterable[Prediction]:
        """Predictions with their pictures, some batches of one at a time."""
        for some in _groups(batch.to(self.device) for batch in batches):
            for batch, prediction in zip(some, self.predict_each(some, task, **how)):
                prediction.picture = self.tasks[task].picture(prediction.values, batch)
                yield prediction


def _groups(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Batches that are in memory together."""
    some, pixels = list[Batch](), 0
    for batch in batches:
        some.append(batch)
        pixels += batch.image[0, 0].numel()
        if len(some) == AT_ONCE or pixels >= PIXELS:
            yield some
            some, pixels = [], 0
    if some:
        yield some
