"""`Dataset`: labelled images held in memory on any device, served in reproducible batches."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.utils.data
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]  # (B, C, H, W) -> (B, C, H, W)

EVENT_CHANNELS = 2  # ON and OFF events: counts, which have no largest value
SPLITS = ("train", "validation", "train+validation", "test")


class Dataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Labelled images in memory.

    `len(ds)` and `ds[i] -> (image, label)` serve a `torch.utils.data.DataLoader`; `batches` is
    the quick way, for it needs no workers and leaves the images on their device.

    Args:
        images: (N, C, H, W), uint8 (0..255), or floating point: in [0, 1], or normalized as the
            model was trained. Other inputs as well, always floating point: features (N, F), series
            (N, C, L), volumes and event frames over time (N, C, D, H, W).
        labels: (N,), integers from 0 to `len(classes) - 1`.
        name: name of the set, as reported in results.
        split: "train", "validation", "train+validation" or "test".
        classes: names of the classes; "0", "1", ... up to the largest label by default.

    Raises:
        TypeError: if images or labels are no tensors, or of another type than named above.
        ValueError: if shapes, values or lengths break a rule above, or the set is empty.

    >>> images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    >>> ds = Dataset(images, torch.tensor([0, 1, 1]), name="dots", classes=("dark", "bright"))
    >>> len(ds), ds[1]
    (3, (tensor([[[0.2000]]]), 1))
    >>> [labels.tolist() for _, labels in ds.batches(2)]
    [[0, 1], [1]]
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        name: str = "custom",
        split: str = "train",
        classes: Sequence[str] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}.")
        _check_images(images)
        _check_labels(labels, len(images), None if classes is None else len(classes))
        self.images = images
        self.labels = labels.to(images.device, torch.int64)
        self.name = name
        self.split = split
        self.classes = tuple(classes or (str(i) for i in range(int(labels.max()) + 1)))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_float(self.images[index]), int(self.labels[index])

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        return f"Dataset({self.name}, {self.split}: {len(self):,} images {shape} on {self.device})"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of every image; the shape of every other input."""
        return tuple(self.images.shape[1:])

    @property
    def known_labels(self) -> Tensor | None:
        """The labels, if they need not be read first."""
        return self.labels

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device | str) -> Dataset:
        """The same set with its tensors on `device`."""
        return self._with(self.images.to(device), self.labels.to(device))

    def subset(self, indices: int | Sequence[int] | Tensor) -> Dataset:
        """The images at `indices`, in that order, or the first n if `indices` is a number n."""
        if isinstance(indices, int):
            if not 1 <= indices <= len(self):
                raise ValueError(
                    f"a subset must have 1 to {len(self):,} images, got {indices}. "
                    "Ask for no more images than the set holds."
                )
            return self._with(self.images[:indices], self.labels[:indices])
        index = torch.as_tensor(indices, device=self.device)
        if index.numel() == 0 or (index.dtype == torch.bool and not index.any()):
            raise ValueError(
                "a subset must have at least one image, got no indices. "
                "Pass a count of 1 or more, or some indices."
            )
        return self._with(self.images[index], self.labels[index])

    def augmented(self, augmentation: Augmentation, seed: int = 0) -> Dataset:
        """The same images, each changed once by `augmentation`."""
        return self._with(augmented(self.images, augmentation, seed), self.labels)

    def float_images(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """All images at once, (N, C, H, W); for instance to calibrate a conversion."""
        return to_float(self.images, dtype)

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel over all pixels, for `Normalize`."""
        total = torch.zeros(2, self.image_shape[0], dtype=torch.float64)
        for images, _ in self.batches(1000, dtype=torch.float64):
            rows = images.transpose(0, 1).flatten(1)
            total += torch.stack((rows.sum(1), (rows**2).sum(1))).cpu()
        mean, square = total / (self.images.numel() / self.image_shape[0])
        return tuple(mean.tolist()), tuple((square - mean**2).clamp(min=0).sqrt().tolist())

    def steps(self, batch_size: int, drop_last: bool) -> int:
        """Batches of one pass."""
        return len(self) // batch_size if drop_last else -(-len(self) // batch_size)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        augmentation: Augmentation | None = None,
        drop_last: bool = False,
        dtype: torch.dtype = torch.float32,
        start_batch: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the set in batches of (images, labels), on the set's device.

        The order and one seed per batch for the augmentation are drawn from `generator` when this
        method is called, whatever is consumed later. A pass can therefore be resumed bit for bit:
        restore the generator's state from before the pass and give the number of batches already
        used as `start_batch`.

        Args:
            batch_size: images per batch; the last batch may hold fewer.
            shuffle: draw a new order.
            generator: CPU generator for order and augmentation; torch's default one if None.
            augmentation: called with a batch of images (uint8 or float, as stored) and a generator;
                one that takes images alone, such as those of torchvision, with image by image.
            drop_last: leave out a last batch that is not full.
            dtype: floating-point type of the images.
            start_batch: number of batches to skip, at no cost.
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        count = self.steps(batch_size, drop_last)
        if not 0 <= start_batch <= count:
            raise ValueError(f"`start_batch` must lie in 0..{count}, got {start_batch}.")
        order = torch.randperm(len(self), generator=generator) if shuffle else None
        seeds = (
            torch.randint(2**31, (count,), generator=generator).tolist() if augmentation else None
        )

        def serve() -> Iterator[tuple[Tensor, Tensor]]:
            for b in range(start_batch, count):
                rows = slice(b * batch_size, (b + 1) * batch_size)
                index = rows if order is None else order[rows].to(self.device)
                images = self.images[index]
                if augmentation is not None and seeds is not None:
                    images = augmented(images, augmentation, seeds[b])
                yield to_float(images, dtype), self.labels[index]

        return serve()

    def _with(self, images: Tensor, labels: Tensor) -> Dataset:
        other = copy.copy(self)  # tensors of a set that was checked need no second look
        other.images, other.labels = images, labels
        return other


def to_float(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels in [0, 1]: uint8 values divided by 255, floating-point ones as they are."""
    return images.to(dtype).div_(255) if images.dtype == torch.uint8 else images.to(dtype)


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(
            f"`images` must be a tensor, got {type(images).__name__}. "
            "Use firstspike.data.from_arrays for NumPy arrays."
        )
    if images.ndim < 2:
        raise ValueError(
            f"`images` must have the shape (N, C, H, W), or (N, ...), got {tuple(images.shape)}. "
            "Use firstspike.data.from_arrays for other layouts."
        )
    if images.numel() == 0:
        raise ValueError(
            f"`images` must not be empty, got the shape {tuple(images.shape)}. "
            "Pass one image at least."
        )
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise TypeError(
            f"`images` must be uint8 or floating point, got {images.dtype}. "
            "Convert them, for instance with `.float()`."
        )
    low, high = (value.item() for value in images.aminmax())
    if low != low or high != high:
        bad = images.isnan().flatten(1).any(1).nonzero().flatten()
        raise ValueError(
            f"`images` must be numbers, but {len(bad):,} of {len(images):,} images hold NaN, "
            f"the first at index {int(bad[0])}. Remove or repair them."
        )
    if low == float("-inf") or high == float("inf"):
        raise ValueError("`images` must be finite, got infinite values. Repair or remove them.")
    photographs = images.ndim == 4 and images.shape[1] != EVENT_CHANNELS
    if photographs and low >= 0 and 1 < high <= 255 and bool((images == images.round()).all()):
        raise ValueError(
            f"floating-point `images` look like 8-bit values, got whole numbers up to {high:g}. "
            "Pass them as uint8, or divided by 255."
        )


def augmented(images: Tensor, augmentation: Augmentation, seed: int) -> Tensor:
    """A batch through `augmentation`, with random numbers that follow from `seed`.

    What takes a batch and a generator is called once. What takes images alone (`torchvision`'s
    transforms, any module or function of one argument) draws from torch's default generator and
    applies one draw to all it is given, so it is called image by image.
    """
    if not _takes_images_alone(augmentation):
        return augmentation(images, torch.Generator().manual_seed(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([augmentation(image) for image in images])  # type: ignore[call-arg]


def _takes_images_alone(augmentation: Augmentation) -> bool:
    if isinstance(augmentation, torch.nn.Module):
        return True
    try:
        inspect.signature(augmentation).bind(None, None)
    except TypeError:
        return True
    return False


def _check_labels(labels: Tensor, images: int, classes: int | None) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"`labels` must be a tensor, got {type(labels).__name__}. Wrap them in torch.as_tensor."
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"`labels` must be integers, got {labels.dtype}. Use class numbers.")
    if labels.shape != (images,):
        raise ValueError(
            f"`labels` must have one class number for each of the {images:,} images, got the "
            f"shape {tuple(labels.shape)}. For one-hot labels pass labels.argmax(1)."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        top = "" if classes is None else f"..{classes - 1}"
        raise ValueError(
            f"`labels` must be class numbers 0{top}, got values from {low} to {high}. "
            "Count classes from 0 and name each one in `classes`."
        )
