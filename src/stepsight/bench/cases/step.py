"""A training step: forward, backward, clipping, optimizer, average."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepsight.bench.peers.diffusers_dit import DiffusersDiT
from stepsight.bench.peers.dit import PlainDiT, fast_step, plain_step
from stepsight.bench.protocol import Contest, Row, Setup, Work, assert_close
from stepsight.execution.compiling import compiled
from stepsight.execution.precision import computing
from stepsight.models.config import DiTSize, ModelSettings, parse
from stepsight.models.factory import build, repeated_blocks
from stepsight.models.layers import position_table
from stepsight.training.config import TrainingSettings
from stepsight.training.optim import EMA, build_optimizers

PROTOCOL = """DiT on 12 input channels (4 of the noisy target, 8 of the condition) and 8 outputs,
1000 labels, all weights random and none zero; forward, backward, clipping at norm 1, optimizer,
average. The same weights and inputs on all sides, whose outputs agree to 1e-5 in float32 and 2e-2
in bf16 (relative norm). DiT: the paper's block and step, stated plainly with SDPA, float32, AdamW,
averages one parameter after the other; fast-DiT: the same network under bf16 autocast, fused
AdamW, averages at once; diffusers: DiTTransformer2DModel with DiT's own frequencies, trained as
either. Ours with AdamW and with the default, Muon. CPU: S/2, 256 tokens, batch 8; GPU: S/2 and
XL/2, batch 64."""

TARGET, COND, LABELS, CLIP = 4, 8, 1000, 1.0
REFERENCES = {
    "ours, AdamW, float32": 1.0,
    "ours, Muon, float32": 1.0,
    "ours, AdamW, bf16": 1.7,
    "ours, Muon, bf16": 1.7,
}
LARGE = 500  # million parameters from which float32 sides are left out: GPUs hold too few


def run(setup: Setup) -> Iterator[Row]:
    names = setup.pick(["DiT-32x2/2"], ["DiT-S/2"], ["DiT-S/2", "DiT-XL/2"])
    side, batch = setup.pick((8, 2), (32, 8), (32, 64))
    for name in names:
        yield from setup.timed(contest(name, side, batch, setup.device))


def contest(name: str, side: int, batch: int, device: str) -> Contest:
    """All sides of a step of the DiT called `name` on latents of `side` x `side`."""
    size = parse(name)
    assert isinstance(size, DiTSize)
    torch.manual_seed(0)
    net = ours(name).to(device)
    weights = net.state_dict()
    tokens = side // size.patch
    positions = position_table(tokens, tokens, size.width)
    plain = PlainDiT(size, TARGET + COND, 2 * TARGET, LABELS, positions).to(device)
    missing, extra = plain.load_state_dict(weights, strict=False)
    assert missing == ["pos_embed"] and not extra, (missing, extra)
    theirs = DiffusersDiT(size, TARGET + COND, 2 * TARGET, side, weights).to(device).eval()
    data = StepInputs.random(batch, side, device)
    check(net, plain, theirs, data, device)

    sides: dict[str, Work] = {}
    large = sum(p.numel() for p in net.parameters()) > 1e6 * LARGE
    if not large:
        sides["DiT, float32"] = plain_step(deepcopy(plain), data.loss, CLIP)
        sides["diffusers, float32"] = plain_step(deepcopy(theirs), data.loss, CLIP)
    sides["fast-DiT, bf16"] = fast_step(plain, data.loss, CLIP, device)
    sides["diffusers, bf16"] = fast_step(theirs, data.loss, CLIP, device)
    for optimizer in ("AdamW", "Muon"):
        for precision in ("bf16",) if large else ("float32", "bf16"):
            step = our_step(deepcopy(net), data, optimizer.lower(), precision, device)
            sides[f"ours, {optimizer}, {precision}"] = step
    peer = next(iter(sides))
    case = f"{name}, {tokens**2} tokens, batch {batch}"
    return Contest(case, sides, peer, {} if large else REFERENCES)


def ours(name: str) -> nn.Module:
    """Our backbone with random weights throughout: zeros would hide what lies before them."""
    settings = ModelSettings(name, learned_variance=True)
    net = build(settings, target_channels=TARGET, cond_channels=COND, labels=LABELS)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.02)
    return net


class StepInputs:
    """A batch, and the mean squared error of a network on it."""

    def __init__(self, x: Tensor, cond: Tensor, t: Tensor, y: Tensor, truth: Tensor) -> None:
        self.x, self.cond, self.t, self.y, self.truth = x, cond, t, y, truth
        self.whole = torch.cat([x, cond], dim=1)

    @classmethod
    def random(cls, batch: int, side: int, device: str) -> StepInputs:
        x, cond, truth = (
            torch.randn(batch, channels, side, side, device=device)
            for channels in (TARGET, COND, 2 * TARGET)
        )
        t = torch.linspace(1, 999, batch, device=device).round()
        return cls(x, cond, t, torch.arange(batch, device=device), truth)

    def ask(self, net: nn.Module) -> Tensor:
        return net(self.whole, self.t, self.y)

    def loss(self, net: nn.Module) -> Tensor:
        return F.mse_loss(self.ask(net), self.truth)

    def ask_ours(self, net: nn.Module) -> Tensor:
        return net(self.x, self.cond, self.t, self.y)


@torch.no_grad()
def check(
    net: nn.Module, plain: nn.Module, theirs: nn.Module, data: StepInputs, device: str
) -> None:
    """That all networks answer alike."""
    wanted = data.ask(plain)
    assert_close(data.ask(theirs), wanted, 1e-5, "diffusers' DiT")
    for precision, tolerance in (("float32", 1e-5), ("bf16", 2e-2)):
        with computing(device, precision):
            assert_close(data.ask_ours(net), wanted, tolerance, f"our DiT in {precision}")


def our_step(
    net: nn.Module, data: StepInputs, optimizer: str, precision: str, device: str
) -> Callable[[], None]:
    """A step as `training.learner` takes it."""
    compiled(repeated_blocks(net), device)
    settings = TrainingSettings(optimizer=optimizer, lr=1e-4, muon_lr=1e-4)  # type: ignore[arg-type]
    optimizers, ema = build_optimizers(net, settings, precision), EMA(net, settings.ema)
    net.train()
    parameters = [*net.parameters()]

    def step() -> None:
        with computing(device, precision):
            loss = F.mse_loss(data.ask_ours(net).float(), data.truth)
        loss.backward()
        grads = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(grads)
        torch._foreach_mul_(grads, (CLIP / (norm + 1e-6)).clamp(max=1))  # pyright: ignore[reportPrivateImportUsage]
        for one in optimizers:
            one.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
            one.step()
        ema.update(net, 1000)
        for one in optimizers:
            one.zero_grad(set_to_none=True)

    return step
