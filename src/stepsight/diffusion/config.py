"""Settings of the diffusion process, and what samplers cost (standard library only)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from stepsight.errors import UserError, suggest
from stepsight.plugins import Registry, names, resolve


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler: its function (`diffusion.trajectory`), its cost, and when it draws fresh noise.

    function: itself, or "module:function", imported when it is called.
    calls: the model calls of n steps are a n + b.
    variance: whether it reads the network's learned variance.
    """

    function: str | Callable[..., Any]
    calls: tuple[int, int] = (1, 0)
    noise: Literal["never", "eta", "always"] = "never"  # eta: where `eta` is above 0
    variance: bool = False

    def __call__(self, *args: Any, **options: Any) -> Any:
        function = resolve(self.function) if isinstance(self.function, str) else self.function
        return function(*args, **options)


SAMPLERS: Registry[SamplerSpec] = Registry(
    {
        "ddim": SamplerSpec("stepsight.diffusion.stochastic:ddim", noise="eta"),
        "ancestral": SamplerSpec("stepsight.diffusion.stochastic:ancestral", noise="always"),
        "ancestral_large": SamplerSpec(
            "stepsight.diffusion.reverse:ancestral_large", noise="always"
        ),
        "ancestral_learned": SamplerSpec(
            "stepsight.diffusion.reverse:ancestral_learned", noise="always", variance=True
        ),
        "euler": SamplerSpec("stepsight.diffusion.ode:euler"),
        # Heun's last step is Euler's, as the slope is unknown at t = 0.
        "heun": SamplerSpec("stepsight.diffusion.ode:heun", calls=(2, -1)),
        "midpoint": SamplerSpec("stepsight.diffusion.ode:midpoint", calls=(2, 0)),
        "dpmpp_2m": SamplerSpec("stepsight.diffusion.multistep:dpmpp_2m"),
        "unipc": SamplerSpec("stepsight.diffusion.multistep:unipc"),
        "plms": SamplerSpec("stepsight.diffusion.multistep:plms"),
        "consistency": SamplerSpec("stepsight.diffusion.stochastic:consistency", noise="always"),
    },
    "samplers",
)


@dataclass(frozen=True)
class Convention:
    """How the scheduler of a published checkpoint walks, where its settings leave that open.

    samplers: whose steps it takes, one of them.
    on: what it counts in. "levels" of the table; "sigma", sigma / alpha, also between levels;
    "log_snr", whose leading and linspace leave out the last of n + 1 levels; "flow", from t = 1 to
    1/1000. On sigma, the start is as noisy as the first visit, which is not quite unit noise.
    strided: whether a step goes down by 1000 // n levels, wherever the next visit is.
    """

    samplers: tuple[str, ...]
    on: Literal["levels", "sigma", "log_snr", "flow"]
    strided: bool = False


# By the name of diffusers' class.
CONVENTIONS = {
    "DDIMScheduler": Convention(("ddim",), "levels", strided=True),
    "PNDMScheduler": Convention(("plms",), "levels"),
    "DDPMScheduler": Convention(("ancestral", "ancestral_large", "ancestral_learned"), "levels"),
    "LCMScheduler": Convention(("consistency",), "levels"),
    "EulerDiscreteScheduler": Convention(("euler",), "sigma"),
    "EulerAncestralDiscreteScheduler": Convention(("ancestral",), "sigma"),
    "HeunDiscreteScheduler": Convention(("heun",), "sigma"),
    "DPMSolverMultistepScheduler": Convention(("dpmpp_2m",), "log_snr"),
    "UniPCMultistepScheduler": Convention(("unipc",), "log_snr"),
    "FlowMatchEulerDiscreteScheduler": Convention(("euler",), "flow"),
}
if TYPE_CHECKING:
    Sampler = str
else:  # with those of other packages, which are not imported to list them
    Sampler = Literal[(*SAMPLERS.built_in, *names("samplers"))]
Spacing = Literal[
    "trailing",
    "leading",
    "leading_less",
    "linspace",
    "respaced",
    "lcm",
    "log_snr",
    "karras",
    "custom",
]
SamplingSchedule = Literal[
    "trained",
    "rectified_flow",
    "linear",
    "scaled_linear",
    "cosine",
    "linear_zero_snr",
    "scaled_linear_zero_snr",
    "cosine_zero_snr",
]
Starts = Literal["independent", "antithetic"]
Views = Literal["none", "mirror", "mirror+shift"]
# These say which noise levels are visited, so that no shift may move them on.
EXACT_SPACINGS = ("leading", "leading_less", "respaced", "lcm", "log_snr", "karras", "custom")


@dataclass(frozen=True)
class DiffusionSettings:
    """Schedule, parametrisation, how noise levels are drawn in training, and how errors weigh."""

    # of the noise levels
    schedule: Literal["rectified_flow", "linear", "scaled_linear", "cosine"] = "rectified_flow"
    zero_terminal_snr: bool = False  # rescale a discrete schedule so that t = 1 is pure noise
    betas: tuple[float, ...] = ()  # linear, scaled_linear: first and last; (): the usual ones
    prediction: Literal["x", "eps", "v"] = "x"  # what the network answers: image, noise or velocity
    density: Literal["uniform", "logit_normal"] = "uniform"  # of u, before the shift
    density_mean: float = 0.0  # logit_normal only
    density_std: float = 1.0  # logit_normal only
    shift: float = 1.5  # t = shift u / (1 + (shift - 1) u): above 1 moves towards noise
    objective: Literal["denoising", "end_to_end"] = "denoising"  # end_to_end: see docs/recipes.md
    told: int | None = None  # end_to_end only: the level the network is told; None: the noisiest
    variance: Literal["ignored", "trained"] = "ignored"  # learned variance, where the model has one
    weighting: Literal["uniform", "min_snr"] = "uniform"  # of errors by noise level
    min_snr_gamma: float = 5.0  # min_snr only: from this signal-to-noise ratio up errors weigh less
    multires_noise: float = 0.0  # strength of coarse noise added to the white noise, 0 = off
    multires_annealed: bool = True  # scale that strength by t (full at pure noise)
    sampler: Sampler = "ddim"  # how steps are taken
    spacing: Spacing = "trailing"  # of the steps
    steps_offset: int = 1  # leading, leading_less: level of the last visit
    sampling_times: tuple[float, ...] = ()  # custom only: the times visited, from 1.0 down
    sampling_schedule: SamplingSchedule = "trained"  # or visit the noise levels of this schedule
    final: Literal["clean", "first_level"] = "clean"  # where sampling ends: t = 0, or level 0
    sampling_shift: float = 4.0  # the same map on the sampler's times; 1 leaves them as spaced
    # whose levels and steps: ours, or those of a class of diffusers, such as DDIMScheduler
    convention: str = "stepsight"
    eta: float = 0.0  # stochasticity of ddim
    temperature: float = 1.0  # of the start noise; 0 starts from zeros
    # alpha of the picture's latent in what paths lead from, noise for the rest; 0: from noise alone
    picture: float = 0.0
    starts: Starts = "independent"  # of members; antithetic: in pairs x, -x
    views: Views = "none"  # further calls see the picture mirrored or shifted, and are averaged
    guidance: float = 1.0  # away from the answer without label, 1 = off; costs a second pass a call
    guided_channels: int = 0  # of the working space, from the first on; 0: all

    @property
    def deterministic(self) -> bool:
        """Whether a sample follows from its start alone."""
        noise = sampler_spec(self.sampler).noise
        return noise == "never" or (noise == "eta" and not self.eta)


class SamplingOptions(TypedDict, total=False):
    """The arguments of `resampled`."""

    sampler: str | None
    spacing: str | None
    schedule: str | None
    times: Sequence[float]
    eta: float | None
    temperature: float | None
    starts: str | None
    views: str | None
    guidance: float | None


def resampled(
    settings: DiffusionSettings,
    *,
    sampler: str | None = None,
    spacing: str | None = None,
    schedule: str | None = None,
    times: Sequence[float] = (),
    eta: float | None = None,
    temperature: float | None = None,
    starts: str | None = None,
    views: str | None = None,
    guidance: float | None = None,
) -> DiffusionSettings:
    """The settings of the same model, sampled in another way; None leaves a choice as it is.

    `schedule` is that of the noise levels visited, `times` the custom ones, which imply the spacing
    "custom"; the others are as the settings name them. Where spacing or schedule say which levels
    are visited, the shift is switched off (`sampling_shift` 1), and with another schedule the
    trajectory ends in clean data: the first level that a published sampler ends at is one of the
    trained schedule. Other steps or levels than those of a published convention are ours.

    Raises UserError for names that do not exist and for times that contradict the spacing.
    """
    changes: dict[str, Any] = {}
    if sampler is not None:
        changes["sampler"] = known("sampler", sampler, SAMPLERS)
    if times and spacing not in (None, "custom"):
        raise UserError(f"times name what spacing '{spacing}' would choose. Give one of the two.")
    if times or spacing is not None:
        changes |= _spaced("custom" if times else str(spacing), times or settings.sampling_times)
    if schedule is not None:
        changes["sampling_schedule"] = known("schedule", schedule, get_args(SamplingSchedule))
        if schedule != "trained":
            changes |= {"sampling_shift": 1.0, "final": "clean"}
    if starts is not None:
        known("starts", starts, get_args(Starts))
    if views is not None:
        known("views", views, get_args(Views))
    plain = {"eta": eta, "temperature": temperature, "starts": starts, "views": views}
    plain |= {"guidance": guidance}
    changes |= {name: value for name, value in plain.items() if value is not None}
    walk = ("sampler", "spacing", "sampling_times", "sampling_schedule")
    if any(changes.get(name, now) != now for name in walk for now in [getattr(settings, name)]):
        changes["convention"] = "stepsight"
    return replace(settings, **changes)


def _spaced(spacing: str, times: Sequence[float]) -> dict[str, Any]:
    """The settings that change with the spacing."""
    known("spacing", spacing, get_args(Spacing))
    custom = spacing == "custom"
    if custom and not times:
        raise UserError("spacing 'custom' needs the times to visit, such as 1.0, 0.6, 0.2.")
    changes = {"spacing": spacing, "sampling_times": tuple(times) if custom else ()}
    return changes | ({"sampling_shift": 1.0} if spacing in EXACT_SPACINGS else {})


def sampler_spec(name: str) -> SamplerSpec:
    """The sampler of that name. Raises UserError for an unknown one."""
    row = SAMPLERS[known("sampler", name, SAMPLERS)]
    return row if isinstance(row, SamplerSpec) else SamplerSpec(row)


def nfe(sampler: str, steps: int) -> int:
    """Model calls that `steps` steps of the sampler cost. Raises UserError for an unknown name."""
    each, extra = sampler_spec(sampler).calls
    return each * steps + extra


def spendable(sampler: str, calls: int) -> bool:
    """Whether some number of steps costs exactly `calls` model calls. Raises as `nfe` does."""
    return calls >= nfe(sampler, 1) and nfe(sampler, _steps(sampler, calls)) == calls


def steps_for(sampler: str, calls: int) -> int:
    """The steps that cost exactly `calls` model calls.

    Raises UserError, naming the nearest possible costs, when no number of steps does.
    """
    if spendable(sampler, calls):
        return _steps(sampler, calls)
    below = max(_steps(sampler, calls), 0)
    near = [nfe(sampler, steps) for steps in (below, below + 1) if steps > 0]
    choices = " or ".join(map(str, near))
    raise UserError(f"{sampler} cannot spend exactly {calls} model calls. Choose {choices}.")


def _steps(sampler: str, calls: int) -> int:
    """The most steps that `calls` model calls pay for."""
    each, extra = sampler_spec(sampler).calls
    return (calls - extra) // each


def known(what: str, name: str, choices: Collection[str]) -> str:
    """`name`, when it is one of the choices. Raises UserError with a suggestion."""
    if name not in choices:
        raise UserError(f"There is no {what} '{name}'.{suggest(name, choices)}")
    return name
