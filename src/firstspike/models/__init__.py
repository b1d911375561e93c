"""Plain torch models of the papers, ready for conversion: images in [0, 1] in, logits out.

`load_model` imports one of your own.
"""

from firstspike.models.cnn import MNISTCNN, DigitsCNN
from firstspike.models.layers import Normalize
from firstspike.models.own import load_model, load_weights
from firstspike.models.resnet import DattaResNet20, ResNet18, ResNet20
from firstspike.models.vgg import VGG11, VGG16, DattaVGG11, DattaVGG16
from firstspike.models.vgg8 import VGG8

__all__ = [
    "MNISTCNN",
    "VGG8",
    "VGG11",
    "VGG16",
    "DattaResNet20",
    "DattaVGG11",
    "DattaVGG16",
    "DigitsCNN",
    "Normalize",
    "ResNet18",
    "ResNet20",
    "load_model",
    "load_weights",
]
