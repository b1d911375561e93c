"""The small network learns the bundled digits in seconds, as its docstring says."""

import pytest
import torch
from torch import nn

from firstspike.data import Digits, load_dataset
from firstspike.models import DigitsCNN


@pytest.mark.slow
def test_digits_cnn_reaches_98_percent():
    model, train = DigitsCNN(), load_dataset("digits", "train")
    epochs, rate = 30, 4e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * -(-len(train) // 64))
    for _ in range(epochs):
        for images, labels in train.batches(64, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
    test = Digits(train=False)
    with torch.no_grad():
        correct = model.eval()(test.float_images()).argmax(1) == test.labels
    assert correct.float().mean() >= 0.98
