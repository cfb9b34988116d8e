"""Fused LoRA gives the outputs and gradients of PEFT's own forward, or leaves the layer to it."""

import copy
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from vlm_ops.training.engine.lora import fuse_lora

WIDTH, INNER = 64, 128
QUANTIZED = pytest.mark.parametrize("quantized", [False, True], ids=["plain", "nf4"])


class Block(nn.Module):
    """Two linear layers, the second without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, INNER)
        self.down = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.down(torch.tanh(self.up(x)))
        return found


def quantize(linear: nn.Linear) -> Linear4bit:
    layer = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        quant_type="nf4",
        compress_statistics=True,
        compute_dtype=torch.float32,
    )
    layer.load_state_dict(linear.state_dict())
    layer.support_avx512bf16_for_cpu = False
    quantized: Linear4bit = layer.to("cpu")
    assert quantized.weight.dtype == torch.uint8
    return quantized


def adapted(*, quantized: bool = False, **options: Any) -> PeftModel:
    """A block with an adapter whose B is not zero: it would hide half of the formula."""
    torch.manual_seed(0)
    block = Block()
    if quantized:
        block.up, block.down = quantize(block.up), quantize(block.down)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["up", "down"], **options)
    model = get_peft_model(block, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


def fused(model: PeftModel) -> PeftModel:
    other = copy.deepcopy(model)
    assert fuse_lora(other) == 2
    return other


def up(model: Any) -> Any:
    return model.base_model.model.up


def inputs(seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, 5, WIDTH, requires_grad=True)


def run(model: PeftModel, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Output, and gradients by the input and by all adapter weights."""
    model.zero_grad()
    x.grad = None
    out: torch.Tensor = model(x)
    torch.autograd.backward((out.float() ** 2).sum())
    found = {
        name: parameter.grad
        for name, parameter in [("x", x), *model.named_parameters()]
        if parameter.grad is not None
    }
    assert len(found) == 5
    return out.detach(), {name: gradient.clone() for name, gradient in found.items()}


def close(found: Any, expected: Any, tolerance: float) -> None:
    """Largest deviation, measured against the largest value."""
    bound = tolerance * expected.abs().max().item()
    torch.testing.assert_close(found.float(), expected.float(), atol=bound, rtol=0)


@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
@QUANTIZED
def test_outputs_and_gradients_are_pefts(quantized: bool, rslora: bool) -> None:
    model = adapted(quantized=quantized, use_rslora=rslora)
    out, gradients = run(model, inputs())
    fused_out, fused_gradients = run(fused(model), inputs())
    close(fused_out, out, 1e-5)
    assert fused_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0.1
        close(fused_gradients[name], gradient, 1e-5)


@QUANTIZED
def test_the_adapter_counts(quantized: bool) -> None:
    """Else the comparison would hold for a formula that leaves it out."""
    model = fused(adapted(quantized=quantized))
    with model.disable_adapter():
        base = model(inputs())
    assert (model(inputs()) - base).abs().max() > 0.1


@QUANTIZED
def test_under_autocast_they_are_close(quantized: bool) -> None:
    model = adapted(quantized=quantized)
    exact, _ = run(model, inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, gradients = run(model, inputs())
        fused_out, fused_gradients = run(fused(model), inputs())
    close(fused_out, out, 0.02)
    close(fused_out, exact, 0.02)
    for name, gradient in gradients.items():
        assert fused_gradients[name].dtype == gradient.dtype
        close(fused_gradients[name], gradient, 0.03)


@pytest.mark.parametrize(("rslora", "scale"), [(False, 12 / 4), (True, 12 / 2)])
def test_the_update_is_scaled_by_the_rank_or_by_its_root(rslora: bool, scale: float) -> None:
    model = fused(adapted(use_rslora=rslora))
    layer, x = up(model), inputs()
    down, back = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    close(layer(x), layer.base_layer(x) + scale * x @ down.T @ back.T, 1e-5)


def test_gradients_are_those_of_the_formula() -> None:
    model = fused(adapted()).double()
    x = torch.randn(3, WIDTH, dtype=torch.float64, requires_grad=True)
    layer = up(model)
    weights = (layer.lora_A["default"].weight, layer.lora_B["default"].weight)

    def forward(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = layer(x)
        return found

    assert torch.autograd.gradcheck(forward, (x, *weights))


def test_an_input_without_gradient_takes_none() -> None:
    model = fused(adapted())
    torch.autograd.backward(model(inputs().detach()).sum())
    layer = up(model)
    assert layer.lora_A["default"].weight.grad.abs().max() > 0
    assert layer.base_layer.weight.grad is None


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize(
    "options",
    [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}],
    ids=["dropout", "dora", "bias"],
)
@QUANTIZED
def test_other_layers_are_left_to_peft(quantized: bool, options: dict[str, Any]) -> None:
    model = adapted(quantized=quantized, **options).eval()
    before = model(inputs())
    assert fuse_lora(model) == 0
    assert torch.equal(model(inputs()), before)


def test_layers_with_two_adapters_are_left_to_peft() -> None:
    model = adapted()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["up"]))
    assert fuse_lora(model) == 1
    assert fuse_lora(nn.Sequential(nn.Linear(2, 2))) == 0


@QUANTIZED
def test_with_the_adapter_switched_off_the_base_answers(quantized: bool) -> None:
    model = adapted(quantized=quantized)
    block: Any = copy.deepcopy(model)
    base = block.unload()
    model = fused(model)
    with model.disable_adapter():
        assert torch.equal(model(inputs()), base(inputs()))
    assert not torch.equal(model(inputs()), base(inputs()))


def test_a_merged_adapter_is_not_added_twice() -> None:
    model: Any = fused(adapted())
    before = model(inputs())
    model.merge_adapter()
    torch.testing.assert_close(model(inputs()), before, atol=1e-5, rtol=0)
    model.unmerge_adapter()
    torch.testing.assert_close(model(inputs()), before, atol=1e-5, rtol=0)
