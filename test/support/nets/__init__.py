"""Definitions of well-known nets, to be compiled: the structure of the papers at any width and depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from . import classifiers, detectors, mobile, pictures, sequences
from .blocks import Scale

FULL = Scale()
SMALL = Scale(0.125, 0.01)


@dataclass(frozen=True)
class Net:
    """How a net is made, and the shapes of its input: as published, and for a quick test."""

    make: Callable[[Scale], nn.Module]
    shape: tuple[int, ...] = (1, 3, 224, 224)
    small_shape: tuple[int, ...] = (1, 3, 64, 64)
    small: Scale = SMALL

    def build(self, *, is_small: bool) -> tuple[nn.Module, torch.Tensor]:
        """Return a net in eval mode with numbers such that its results are neither all alike nor huge, and an input."""
        generator_state = torch.get_rng_state()
        torch.manual_seed(0)
        net = self.make(self.small if is_small else FULL)
        shape = self.small_shape if is_small else self.shape
        brightness, contrast = torch.randn(2, 4, *[1] * (len(shape) - 1))
        settle(net, torch.randn(4, *shape[1:]) * (1 + contrast.abs()) + brightness)
        x = torch.randn(shape)
        torch.set_rng_state(generator_state)
        return net.eval(), x


@torch.no_grad()
def settle(net: nn.Module, x: torch.Tensor) -> None:
    """Give batch norms scales and shifts, and the means and variances of a batch."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0.0, 0.3)
        elif isinstance(module, nn.PReLU):
            module.weight.uniform_(0.1, 0.4)
    net.train()(x)


def small_vit(scale: Scale) -> nn.Module:
    return sequences.ViT(scale, 32, 8) if scale.width < 1 else sequences.ViT(scale)


NETS = {
    "efficientnet_b0": Net(mobile.efficientnet_b0),
    "mobilenet_v3": Net(mobile.mobilenet_v3),
    "squeezenet": Net(mobile.squeezenet),
    "densenet121": Net(classifiers.densenet121),
    "shufflenet_v1": Net(mobile.shufflenet_v1),
    "shufflenet_v2": Net(mobile.shufflenet_v2),
    "ghostnet": Net(mobile.ghostnet),
    "inception_v3": Net(classifiers.inception_v3, (1, 3, 299, 299), (1, 3, 95, 95)),
    "regnet_y_400mf": Net(classifiers.regnet_y_400mf),
    "resnext50": Net(classifiers.resnext50, small=Scale(0.25, 0.01)),
    "se_resnet50": Net(classifiers.se_resnet50),
    "dla34": Net(classifiers.dla34),
    "drn_d22": Net(classifiers.drn_d22),
    "hrnet_w18": Net(classifiers.HRNet),
    "vovnet39": Net(classifiers.vovnet39),
    "dpn68": Net(classifiers.dpn68),
    "xception": Net(mobile.xception, (1, 3, 299, 299), (1, 3, 71, 71)),
    "nasnet_cell": Net(classifiers.NASNet, (1, 3, 224, 224), (1, 3, 31, 31)),
    "unet": Net(pictures.UNet, (1, 3, 256, 256), (1, 3, 32, 32)),
    "deeplab_v3": Net(pictures.deeplab_v3, (1, 3, 256, 256)),
    "pspnet": Net(pictures.pspnet, (1, 3, 256, 256)),
    "linknet": Net(pictures.LinkNet, (1, 3, 256, 256)),
    "erfnet": Net(pictures.erfnet, (1, 3, 256, 256), (1, 3, 48, 48)),
    "bisenet": Net(pictures.BiSeNet, (1, 3, 256, 256)),
    "edsr": Net(pictures.edsr, (1, 3, 64, 64), (1, 3, 16, 16)),
    "espcn": Net(pictures.espcn, (1, 1, 96, 96), (1, 1, 20, 20)),
    "yolo_v3_tiny": Net(detectors.YoloV3Tiny, (1, 3, 416, 416)),
    "yolo_v8": Net(detectors.YoloV8, (1, 3, 320, 320)),
    "centernet": Net(detectors.CenterNet, (1, 3, 256, 256)),
    "openpose": Net(detectors.OpenPose, (1, 3, 184, 184), (1, 3, 40, 40)),
    "quartznet": Net(sequences.QuartzNet, (1, 64, 400), (1, 64, 60)),
    "crnn": Net(sequences.CRNN, (1, 1, 32, 128), (1, 1, 32, 40)),
    "vit_tiny": Net(small_vit, (1, 3, 224, 224), (1, 3, 32, 32)),
    "convnext_tiny": Net(classifiers.convnext_tiny),
}
