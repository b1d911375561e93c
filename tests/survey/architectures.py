"""Public architectures, as their packages name them, with the side of the images they are tried on.

64 pixels where the architecture allows it; data sets' own sizes and 224 where it does not.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

# package -> {side (or shape): names}
ARCHITECTURES: dict[str, dict[int | tuple[int, ...], str]] = {
    "torchvision": {
        64: """alexnet vgg11_bn resnet18 resnet34 resnet50 resnext50_32x4d squeezenet1_0
            squeezenet1_1 densenet121 googlenet mobilenet_v2 mnasnet0_5 mnasnet1_0
            shufflenet_v2_x0_5 shufflenet_v2_x1_0 regnet_x_400mf regnet_x_800mf
            regnet_y_400mf mobilenet_v3_small efficientnet_b0 convnext_tiny
            segmentation.fcn_resnet50 segmentation.deeplabv3_resnet50
            segmentation.lraspp_mobilenet_v3_large""",
        96: "inception_v3",
        224: "vit_b_16",
        (3, 4, 32, 32): "video.r3d_18 video.mc3_18 video.r2plus1d_18",
    },
    "timm": {
        64: """resnet10t resnet18d resnet26t resnet34 repvgg_a0 mobilenetv1_100
            efficientnet_lite0 tf_efficientnet_lite0 tf_mobilenetv3_small_minimal_100
            darknet53 cspresnet50 cspdarknet53 res2net50_14w_8s res2next50 dpn48b dpn68 dla34
            dla46_c dla60x hrnet_w18_small selecsls42b regnetx_002 regnetx_004 regnety_002
            xception41 densenet121 fbnetc_100 spnasnet_100 mnasnet_small mobilenetv2_050
            gernet_s mobileone_s0 tf_efficientnet_es efficientnet_es ghostnet_100 resnest14d
            skresnet18 convmixer_768_32 resnetv2_50 vovnet39a ese_vovnet19b_dw
            rexnet_100 tresnet_m seresnet18 lcnet_050""",
        96: "inception_v4 inception_resnet_v2",
        224: "deit_tiny_patch16_224 mixer_s32_224",
    },
    "pytorchcv": {
        32: """resnet20_cifar10 preresnet20_cifar10 resnext29_32x4d_cifar10
            densenet40_k12_cifar10 nin_cifar10 rir_cifar10 xdensenet40_2_k24_bc_cifar10
            shakeshakeresnet20_2x16d_cifar10 shakedropresnet20_cifar10 ror3_56_cifar10
            pyramidnet110_a48_cifar10 diaresnet20_cifar10 seresnet20_cifar10
            resnet20_svhn""",
        224: """mobilenet_wd4 fdmobilenet_wd4 diracnet18v2 bninception hardnet39ds peleenet
            channelnet shufflenet_g1_wd4 shufflenet_g3_wd4 shufflenetv2_wd2 shufflenetv2b_wd2
            menet108_8x1_g3 igcv3_wd4 darknet_tiny darknet_ref squeezenet_v1_1 squeezeresnet_v1_1
            sqnxt23_w1 octresnet10_ad2 condensenet74_c4_g4 bagnet9 resnet10 preresnet10
            regnetx002 vovnet27s ghostnet dla46c dicenet_wd5 spnasnet""",
    },
}


def entries() -> list[tuple[str, str, tuple[int, ...]]]:
    """(package, architecture, shape of an input)."""
    return [
        (package, name, shape if isinstance(shape, tuple) else (3, shape, shape))
        for package, sizes in ARCHITECTURES.items()
        for shape, names in sizes.items()
        for name in names.split()
    ]


def declare_operators() -> None:
    """Let torchvision be imported beside a build of torch that its operators are not compiled for.

    Those that it asks for when it is imported are declared; no network calls them.
    """
    for operator in ("nms", "qnms"):
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{operator}", schema)


def prepare_packages() -> dict[str, str]:
    """Import the packages; their versions."""
    declare_operators()
    versions = {"torch": torch.__version__}
    for package in ARCHITECTURES:
        module = importlib.import_module(package)
        versions[package] = getattr(module, "__version__", "")
    return versions


def build(package: str, name: str) -> nn.Module:
    """The architecture with random weights."""
    options: dict[str, Any] = {}
    if package == "timm":
        import timm

        return timm.create_model(name, pretrained=False)
    if package == "pytorchcv":
        from pytorchcv.model_provider import get_model

        return get_model(name, pretrained=False)
    if name.startswith("segmentation"):
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = True
    space, _, function = name.rpartition(".")
    module = importlib.import_module("torchvision.models" + (f".{space}" if space else ""))
    return getattr(module, function)(weights=None, **options)
