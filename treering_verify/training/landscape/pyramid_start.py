"""Initial weights of the autoencoder: a linear pyramid that keeps every colour before training.

From random weights the autoencoder learned brightness first, and an image's hue not at all in 5,000 steps. Its
normalisations subtract the mean of each group of channels in every block, and with it the colour of the whole image. Yet
interpolated 4 x 4 means of the colours alone are closer to these scenes than that autoencoder came. Training starts there:

* the first channels of every trunk carry colours as pairs (+c, -c), and residual branches begin by leaving them alone. A
  pair has no mean that a normalisation could take out, and passes the activation unchanged: silu(c) - silu(-c) = c;
* a pair of constants ("anchor") keeps the spread of the whole, by which the last normalisation divides, nearly constant;
* the encoder's latent is brightness, two colour differences, and the brightness of the upper half of each block less that
  of the lower: of five such fourth channels (the others: left less right, centre less border,
  middle rows less outer rows, brightest less mean) the one whose best linear decoder came closest to the scenes.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from torch import nn

_CARRIED = 4  # red, green, blue, detail
_PAIRS = 2 * _CARRIED
_TRUNK = _PAIRS + 2  # the pairs and the anchor
# Rows: brightness, red - blue, green - others, detail; gains that give each about unit spread on the scenes.
_OPPONENT = torch.tensor([[0.7, 0.7, 0.7, 0.0], [1.8, 0.0, -1.8, 0.0], [-2.7, 5.4, -2.7, 0.0], [0.0, 0.0, 0.0, 30.0]])
_CALM = 0.3  # residual branches begin this much weaker
_FAINT = 0.03  # what is not carried enters the outputs this much weaker
_LOGVAR = -5.0  # of the posterior, at the beginning


@torch.no_grad()
def begin_as_pyramid(model: AutoencoderKL, images: torch.Tensor) -> None:
    """Set the weights of a fresh autoencoder so that it encodes colours linearly and interpolates them.

    Parameters
    ----------
    model : AutoencoderKL
        With one normalisation group, two downsamplings, four latent channels; changed in place.
    images : (B, 3, H, W) float32 in [-1, 1]
        Scenes on which the scale of the last normalisations is read off.
    """
    for part in (model.encoder, model.decoder):
        _carry_trunk(part)
    _enter(model.encoder.conv_in, torch.eye(_CARRIED)[:, :3])
    _enter(model.decoder.conv_in, torch.linalg.inv(_OPPONENT))
    _add_detail(model.encoder.down_blocks[-2].downsamplers[0].conv)
    _use_detail(model.decoder.up_blocks[0].upsamplers[0].conv)
    for mix in (model.quant_conv, model.post_quant_conv):
        mix.weight.copy_(torch.eye(mix.out_channels)[:, :, None, None])
        mix.bias.zero_()
    model.encoder.conv_out.weight[4:].mul_(_FAINT)
    model.encoder.conv_out.bias[4:] = _LOGVAR
    spread = _Spread(model.encoder.conv_norm_out, model.decoder.conv_norm_out)
    model.encode(images)
    _leave(model.encoder.conv_out, _OPPONENT, spread.of[model.encoder.conv_norm_out])
    model.decode(model.encode(images).latent_dist.mean)
    _leave(model.decoder.conv_out, torch.eye(_CARRIED)[:3], spread.of[model.decoder.conv_norm_out])
    spread.close()


class _Spread:
    """Standard deviation of what enters each of the given layers in the last forward pass."""

    def __init__(self, *layers: nn.Module) -> None:
        self.of: dict[nn.Module, float] = {}
        self._hooks = [layer.register_forward_hook(self._keep) for layer in layers]

    def _keep(self, layer: nn.Module, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        self.of[layer] = float(inputs[0].std())

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _carry_trunk(part: nn.Module) -> None:
    """Make every convolution on the trunk copy the pairs, and every residual branch leave them unchanged."""
    smooth = torch.tensor([0.1, 0.8, 0.1])
    mean = torch.zeros(3, 3)
    mean[:2, :2] = 0.25  # the downsampling pads at the right and the bottom: its window is 2 x 2
    for layer in part.modules():
        if isinstance(layer, ResnetBlock2D):
            layer.conv2.weight.mul_(_CALM)[:_TRUNK] = 0
            layer.conv2.bias.mul_(_CALM)[:_TRUNK] = 0
            if layer.conv_shortcut is not None:
                _carry(layer.conv_shortcut, torch.ones(1, 1))
        elif isinstance(layer, Downsample2D):
            _carry(layer.conv, mean)
        elif isinstance(layer, Upsample2D):
            _carry(layer.conv, torch.outer(smooth, smooth))


def _carry(conv: nn.Conv2d, kernel: torch.Tensor) -> None:
    _anchor(conv)
    for channel in range(_PAIRS):
        conv.weight[channel, channel] = kernel


def _anchor(conv: nn.Conv2d) -> None:
    """Set the trunk's rows to zero, and its constants so that they alone give the whole a variance of 1."""
    constant = (conv.out_channels / 2) ** 0.5
    conv.weight[:_TRUNK] = 0
    _bias(conv)[:_TRUNK] = torch.tensor([0.0] * _PAIRS + [constant, -constant])


def _bias(conv: nn.Conv2d) -> torch.Tensor:
    assert conv.bias is not None
    return conv.bias


def _enter(conv: nn.Conv2d, matrix: torch.Tensor) -> None:
    """Set the first layer: the pairs are the inputs, mixed by `matrix` (4, inputs)."""
    _anchor(conv)
    conv.weight[:_PAIRS, :, 1, 1] = torch.cat([matrix, -matrix])


def _leave(conv: nn.Conv2d, matrix: torch.Tensor, spread: float) -> None:
    """Set the last layer: the outputs are the pairs' differences, mixed by `matrix` (outputs, 4), times `spread`."""
    rows = len(matrix)
    conv.weight[:rows] *= _FAINT
    _bias(conv)[:rows] = 0
    conv.weight[:rows, :_TRUNK] = 0
    conv.weight[:rows, :_PAIRS, 1, 1] = spread * torch.cat([matrix, -matrix], dim=1)


def _add_detail(conv: nn.Conv2d) -> None:
    """Set the second downsampling: the detail is the brightness of the upper row less that of the lower."""
    kernel = torch.zeros(3, 3)
    kernel[0, :2], kernel[1, :2] = 0.125 / 3, -0.125 / 3
    for sign, row in ((1, 3), (-1, _CARRIED + 3)):
        conv.weight[row, :_PAIRS] = 0
        conv.weight[row, :3] = sign * kernel
        conv.weight[row, _CARRIED : _CARRIED + 3] = -sign * kernel


def _use_detail(conv: nn.Conv2d) -> None:
    """Set the first upsampling: the detail makes the upper row of its block brighter, the lower darker."""
    kernel = torch.zeros(3, 3)
    kernel[:, 1] = torch.tensor([-0.5, 0.0, 0.5])
    for sign, rows in ((1, slice(0, 3)), (-1, slice(_CARRIED, _CARRIED + 3))):
        conv.weight[rows, 3] = sign * kernel
        conv.weight[rows, _CARRIED + 3] = -sign * kernel
