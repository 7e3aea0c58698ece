"""U-Nets against diffusers' own classes, the published sizes, and FLOPs counted layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from stepsight.errors import UserError
from stepsight.models.activations import activation_bytes
from stepsight.models.config import UNET, ModelSettings, parse
from stepsight.models.factory import check_size, count_flops
from stepsight.models.unet import ClassUNet, TextUNet, build_unet, diffusers_config

TARGET, COND, LABELS, TOKENS = 2, 3, 4, 5
TEXT: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.8.0",
    "sample_size": 96,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": [2, 4],
    "cross_attention_dim": 6,
    "use_linear_projection": True,
    "tokens": TOKENS,
}
CLASS: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "block_out_channels": [8, 8, 16],
    "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
}

SKIPS = {"down_block_types": ["DownBlock2D", "DownBlock2D", "SkipDownBlock2D"]}


def custom(config: dict[str, Any] | str) -> TextUNet | ClassUNet:
    text = config if isinstance(config, str) else json.dumps(config)
    return build_unet(ModelSettings(name="unet", unet=text), None, TARGET, COND, LABELS)


def row(name: str, target: int = 4, cond: int = 4) -> TextUNet | ClassUNet:
    size = parse(name)
    return build_unet(ModelSettings(name=name), size, target, cond, LABELS)  # type: ignore[arg-type]


def text_net() -> TextUNet:
    """A text U-Net whose prompts differ from label to label."""
    torch.manual_seed(0)
    net = custom(TEXT)
    assert isinstance(net, TextUNet)
    net.prompt.data.normal_()
    return net


def class_net() -> ClassUNet:
    torch.manual_seed(0)
    net = custom(CLASS)
    assert isinstance(net, ClassUNet)
    return net


def inputs(labels: list[int], side: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(7)
    rows = len(labels)
    x = torch.randn(rows, TARGET, side, 2 * side, generator=draw)
    cond = torch.randn(rows, COND, side, 2 * side, generator=draw)
    return x, cond, 999 * torch.rand(rows, generator=draw), torch.tensor(labels)


@torch.no_grad()
def test_the_text_unet_is_that_of_diffusers_with_the_condition_first():
    net, (x, cond, time, label) = text_net(), inputs([0, 3, LABELS])
    arguments = {k: v for k, v in TEXT.items() if k[0] != "_" and k != "tokens"}
    peer = UNet2DConditionModel(in_channels=COND + TARGET, out_channels=TARGET, **arguments)
    peer.load_state_dict(net.unet.state_dict())
    assert peer.config["sample_size"] == net.unet.config["sample_size"] == 96
    prompt = net.prompt[label]
    assert prompt.shape == (3, TOKENS, TEXT["cross_attention_dim"])
    expected = peer(torch.cat([cond, x], 1), time, encoder_hidden_states=prompt).sample
    torch.testing.assert_close(net(x, cond, time, label), expected, rtol=1e-5, atol=1e-5)
    swapped = peer(torch.cat([x, cond], 1), time, encoder_hidden_states=prompt).sample
    assert (swapped - expected).abs().max() > 1e-2


@torch.no_grad()
def test_the_switch_is_what_diffusers_calls_class_labels():
    config = TEXT | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
    torch.manual_seed(0)
    net, (x, cond, time, label) = custom(config), inputs([0, 3, LABELS])
    assert isinstance(net, TextUNet) and net.switch is not None
    assert net.switch.shape == (LABELS + 1, 4) and not net.switch.requires_grad
    assert not net.switch.any() and "switch" in net.state_dict()
    net.switch.data.normal_()
    net.prompt.data.normal_()
    arguments = {k: v for k, v in config.items() if k[0] != "_" and k != "tokens"}
    peer = UNet2DConditionModel(in_channels=COND + TARGET, out_channels=TARGET, **arguments)
    peer.load_state_dict(net.unet.state_dict())
    given = {"encoder_hidden_states": net.prompt[label], "class_labels": net.switch[label]}
    expected = peer(torch.cat([cond, x], 1), time, **given).sample
    torch.testing.assert_close(net(x, cond, time, label), expected, rtol=1e-5, atol=1e-5)
    net.switch.data += 1
    assert (net(x, cond, time, label) - expected).abs().max() > 1e-3
    assert diffusers_config(net)["class_embed_type"] == "projection"


@torch.no_grad()
def test_the_class_unet_is_that_of_diffusers_with_the_condition_first():
    net, (x, cond, time, label) = class_net(), inputs([0, 3, LABELS])
    arguments = {k: v for k, v in CLASS.items() if k[0] != "_"} | {"num_class_embeds": LABELS + 1}
    peer = UNet2DModel(in_channels=COND + TARGET, out_channels=TARGET, **arguments)
    peer.load_state_dict(net.unet.state_dict())
    expected = peer(torch.cat([cond, x], 1), time, class_labels=label).sample
    torch.testing.assert_close(net(x, cond, time, label), expected, rtol=1e-5, atol=1e-5)


def test_it_starts_with_the_weights_that_diffusers_draws():
    """Names and order included, and nothing more is drawn."""
    net, left = class_net(), torch.rand(1)
    torch.manual_seed(0)
    arguments = {k: v for k, v in CLASS.items() if k[0] != "_"} | {"num_class_embeds": LABELS + 1}
    peer = UNet2DModel(in_channels=COND + TARGET, out_channels=TARGET, **arguments)
    assert torch.equal(torch.rand(1), left)
    own, published = net.unet.state_dict(), peer.state_dict()
    assert list(own) == list(published) and all(map(torch.equal, own.values(), published.values()))


@torch.no_grad()
@pytest.mark.parametrize("make", [text_net, class_net])
def test_a_row_is_told_its_own_time_and_label_alone(make):
    net, batch = make(), inputs([*range(LABELS + 1)])
    together = net(*batch)
    for at in range(LABELS + 1):
        alone = net(*[part[at : at + 1] for part in batch])
        torch.testing.assert_close(alone[0], together[at], atol=1e-5, rtol=1e-5)
    for place in range(4):
        changed = list(batch)
        changed[place] = batch[place].roll(1, dims=0)
        assert ((net(*changed) - together).flatten(1).norm(dim=1) > 1e-4).all(), place


@torch.no_grad()
@pytest.mark.parametrize("chosen", [0, 2, LABELS])
def test_a_label_reads_its_own_prompt_and_no_other(chosen):
    net, batch = text_net(), inputs([chosen])
    before = net(*batch)
    others = [at for at in range(LABELS + 1) if at != chosen]
    net.prompt[others] = 9.0
    assert torch.equal(net(*batch), before)
    net.prompt[chosen] += 1.0
    assert (net(*batch) - before).abs().max() > 1e-4


def test_the_prompt_starts_empty_and_is_a_parameter_that_does_not_learn():
    net = custom({key: value for key, value in TEXT.items() if key != "tokens"})
    assert isinstance(net, TextUNet)
    prompt = dict(net.named_parameters())["prompt"]
    assert prompt.shape == (LABELS + 1, 2, 6) and not prompt.any() and not prompt.requires_grad
    assert all(name == "prompt" or p.requires_grad for name, p in net.named_parameters())


@pytest.mark.parametrize("make", [text_net, class_net])
def test_gradients_reach_both_halves_of_the_input_and_not_the_prompt(make):
    net = make()
    net(*inputs([0, LABELS])).square().sum().backward()
    reached = net.unet.conv_in.weight.grad.abs().sum(dim=(0, 2, 3))
    assert reached.shape == (COND + TARGET,) and (reached > 0).all()
    without = {name for name, p in net.named_parameters() if p.grad is None}
    assert without == ({"prompt"} if isinstance(net, TextUNet) else set())


@torch.no_grad()
@pytest.mark.parametrize("make", [text_net, class_net])
def test_the_configuration_rebuilds_the_network(make):
    net, batch = make(), inputs([1, LABELS])
    config = diffusers_config(net)
    assert [key for key in config if key.startswith("_")] == ["_class_name"]
    again = custom(config)
    assert type(again) is type(net) and diffusers_config(again) == config
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(*batch), net(*batch))


@torch.no_grad()
@pytest.mark.parametrize("make", [text_net, class_net])
def test_a_folder_of_diffusers_can_be_taken_up(make, tmp_path):
    net, batch = make(), inputs([1, LABELS])
    net.unet.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    if isinstance(net, TextUNet):
        (tmp_path / "config.json").write_text(json.dumps(config | {"tokens": TOKENS}))
    again = custom(str(tmp_path / "config.json"))
    published = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    state = {f"unet.{key}": value for key, value in published.items()}
    missing, unexpected = again.load_state_dict(state, strict=False)
    assert missing == (["prompt"] if isinstance(net, TextUNet) else []) and not unexpected
    if isinstance(net, TextUNet):
        again.prompt.copy_(net.prompt)  # type: ignore[operator]
    assert torch.equal(again(*batch), net(*batch))


def test_the_numbers_of_channels_are_the_tasks_whatever_the_file_says():
    net = custom(TEXT | {"in_channels": 9, "out_channels": 1})
    assert (net.unet.conv_in.in_channels, net.unet.conv_out.out_channels) == (5, 2)
    again = custom(CLASS | {"in_channels": 9, "out_channels": 1, "num_class_embeds": 77})
    assert (again.unet.conv_in.in_channels, again.unet.conv_out.out_channels) == (5, 2)
    assert again.unet.class_embedding.num_embeddings == LABELS + 1  # type: ignore[union-attr]


def test_unets_for_text_take_any_size_and_those_for_classes_whole_strides():
    text, classes = custom(TEXT), custom(CLASS)
    assert (text.stride, text.coarsest) == (1, 2) and classes.stride == classes.coarsest == 4
    assert text(*inputs([0], 5)).shape == (1, TARGET, 5, 10)
    check_size(classes, (12, 4), "size")
    assert classes(*inputs([0], 12)).shape == (1, TARGET, 12, 24)
    with pytest.raises(UserError, match="size: W=.* not a multiple of 4"):
        check_size(classes, (4, 5), "size")


@torch.no_grad()
@pytest.mark.parametrize("make", [text_net, class_net])
def test_it_runs_under_bfloat16_autocast(make):
    net, batch = make(), inputs([0, LABELS])
    exact = net(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(*batch)
    assert 0 < (rough.float() - exact).norm() < 0.05 * exact.norm()


# Weights of the published unet/config.json with 4 channels in and out, in Stable Diffusion 1 and 2.
PUBLISHED = {"unet-sd1": 859_520_964, "unet-sd2": 865_910_724}
LATENTS = (torch.zeros(1, 4, 64, 64), torch.zeros(1, 4, 64, 64), torch.zeros(1), torch.tensor([0]))


@pytest.mark.parametrize("name", UNET)
def test_every_row_has_the_size_it_should(name):
    size = UNET[name]
    with torch.device("meta"):
        net = row(name)
    count = sum(p.numel() for p in net.unet.parameters())
    assert net.coarsest == 2 ** (len(size.channels) - 1)
    if size.text is None:
        assert isinstance(net, ClassUNet) and count == 1_116_324
    else:
        assert isinstance(net, TextUNet) and net.prompt.shape == (LABELS + 1, *size.text)
        assert count == PUBLISHED[name] + 4 * 320 * 9  # 4 more input channels, 3 x 3 kernel


@torch.no_grad()
def test_the_tiny_row_works_and_attends_at_the_lowest_level_alone():
    net = row("unet-tiny", TARGET, COND)
    attended = {
        name.split(".attentions")[0] for name, _ in net.unet.named_modules() if "att" in name
    }
    assert attended == {"down_blocks.2", "mid_block", "up_blocks.0"}
    assert net(*inputs([0, LABELS])).isfinite().all()


def counted_by_hand(net: nn.Module, batch: tuple[Tensor, ...]) -> int:
    """FLOPs of every linear map, convolution and pair of attention products, from their shapes."""
    total = 0

    def add(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict, out: Tensor) -> None:
        nonlocal total
        if isinstance(module, Attention):
            hidden = args[0].flatten(2).mT if args[0].ndim == 4 else args[0]
            context = kwargs.get("encoder_hidden_states")
            keys = hidden if context is None else context
            total += 4 * len(hidden) * hidden.shape[1] * keys.shape[1] * module.inner_dim
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            total += 2 * out.numel() * module.weight[0].numel()

    for module in net.modules():
        module.register_forward_hook(add, with_kwargs=True)
    net(*batch)
    return total


@torch.no_grad()
@pytest.mark.parametrize("name", UNET)
def test_flops_are_counted_without_memory(name):
    with torch.device("meta"):
        net = row(name)
    expected = counted_by_hand(net, tuple(part.to("meta") for part in LATENTS))
    assert count_flops(lambda: row(name), LATENTS) == expected


def test_the_memory_of_training_is_known_without_it():
    """float32, 64 x 64 latents: the first and last level alone keep 320 channels many times."""
    kept = activation_bytes(lambda: row("unet-sd2"), LATENTS)
    assert 20 * 4 * 320 * 64 * 64 < kept < 8e9


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "model.unet '': cannot be read"),
        ("no/such/config.json", "model.unet 'no/such/config.json': cannot be read .No such file"),
        ("{", "model.unet: no JSON"),
        ({"block_out_channels": [8]}, "_class_name is None. Choose from"),
        (TEXT | {"_class_name": "UNet2DConditionModels"}, "Did you mean 'UNet2DConditionModel'"),
        (TEXT | {"_class_name": "AutoencoderKL"}, "_class_name is 'AutoencoderKL'"),
        (TEXT | {"tokens": 0}, "tokens is 0, not a positive integer"),
        (TEXT | {"tokens": "2"}, "tokens is '2', not a positive integer"),
        (CLASS | {"tokens": 2}, "refuses .*'tokens'"),
        (TEXT | {"width": 3}, "refuses .*unexpected keyword argument 'width'"),
        (TEXT | {"norm_num_groups": 3}, "refuses .*divisible"),
        (TEXT | {"norm_num_groups": 0}, "refuses .*zero"),
        (TEXT | {"block_out_channels": [8, -16]}, "refuses .*negative"),
        (TEXT | {"act_fn": 3}, "refuses .*lower"),
        (TEXT | {"cross_attention_dim": [6, 6]}, "cross_attention_dim is .6, 6."),
        (TEXT | {"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'"),
        (TEXT | {"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
        (TEXT | {"class_embed_type": "projection"}, "refuses .*projection_class_embeddings"),
        (TEXT | {"num_class_embeds": 1000}, "num_class_embeds is 1000, but has to be null"),
        (CLASS | {"time_embedding_type": "learned"}, 'has to be "positional"'),
        (TEXT | {"center_input_sample": True}, "center_input_sample is not supported"),
        (CLASS | SKIPS, "SkipDownBlock2D is not supported"),
    ],
)
def test_a_configuration_that_is_none_is_refused(config, said):
    with pytest.raises(UserError, match=said):
        custom(config)


@pytest.mark.parametrize(
    ("content", "said"), [("[1]", "object is needed, not a list"), ("weights", "no JSON")]
)
def test_a_file_of_something_else_is_named(tmp_path: Path, content, said):
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(UserError, match=f"model.unet '{file}': .*{said}"):
        custom(str(file))
