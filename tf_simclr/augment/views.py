"""The augmented views of a batch."""

import dataclasses
from collections.abc import Hashable, Iterable
from typing import TypeVar

import tensorflow as tf

from tf_simclr.augment.chain import Chain, apply_operators, check_chain, simclr_chain, split_chain
from tf_simclr.augment.crop import RandomCrop, crop_and_resize
from tf_simclr.augment.draws import check_ranges, uniform
from tf_simclr.augment.flip import RandomFlip, mirror
from tf_simclr.augment.fusion import fused_on_cpu
from tf_simclr.augment.operator import Operator
from tf_simclr.augment.pixels import check_dtype, check_range

_Value = TypeVar("_Value", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Makes views of every image, one for each branch; by default the two of SimCLR (paper, appendix A).

    It runs on whole batches, on the network's device, with or without XLA. Every random number follows from `seed`, the
    image's own key (epoch, example), the view and the operator: a resumed run, a run on more replicas, or any part of a
    batch sees the same pixels, and adding a view or an operator changes none of them.

    Attributes:
      image_size: Height and width S of the views in pixels.
      branches: The chain of operators of each view, each starting with a `RandomCrop`. Views with equal chains are made
        together.
      seed: Any integer.
      shared_crop: A crop that is cut out of each image first, the same for all its views: the crops of the branches lie
        inside it (paper, figure 5). Its stream must not be one of theirs.
      first_view: Number of the first view, from which its random numbers follow; the other views count on from there.
        Two augmentations of the same images draw different numbers if no number is one of both.

    Raises:
      ValueError: If a value is out of its range, or the operators of a branch do not fit together.
    """

    image_size: int
    branches: tuple[Chain, ...] = (simclr_chain(),) * 2
    seed: int = 0
    shared_crop: RandomCrop | None = None
    first_view: int = 0

    def __post_init__(self) -> None:
        # JSON has lists only, and chains are compared and hashed.
        object.__setattr__(self, "branches", tuple(tuple(chain) for chain in self.branches))
        if self.image_size < 1:
            raise ValueError(f"`image_size` must be at least 1 pixel. Received: {self.image_size!r}")
        if not self.branches:
            raise ValueError(f"`branches` must have at least one chain of operators. Received: {self.branches!r}")
        for chain in self.branches:
            check_chain(chain, self.shared_crop)
            check_ranges(self.view_numbers, {operator.stream: operator.num_draws for operator in chain})

    @property
    def num_views(self) -> int:
        """V, the number of views of every image."""
        return len(self.branches)

    @property
    def view_numbers(self) -> range:
        """The numbers of the views, from which their random numbers follow."""
        return range(self.first_view, self.first_view + self.num_views)

    def __call__(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """Makes the views of every image.

        Args:
          images: uint8, or float in [0, 1]: `[n, H, W, 3]` images to crop, or `[n, V, S, S, 3]` views that are already
            cropped (see `crop_boxes`) and get everything else.
          keys: int64 `[n, 2]`, (epoch, example) of every image, see `draws.example_keys`.

        Returns:
          float32 `[V n, S, S, 3]` in [0, 1]: the n first views, then the n second ones, ...

        Raises:
          ValueError: If `images` has another shape, type or range; in a graph, a range raises
            `tf.errors.InvalidArgumentError` when it runs, and under XLA nothing, see `pixels.check_range`.
        """
        images = tf.convert_to_tensor(images)
        self.check_spec(images)
        check_range(images)
        if images.shape.rank == 4:
            images = tf.image.convert_image_dtype(images, tf.float32)
        groups = _positions(self.branches).items()
        return self._in_order([(numbers, self._make_views(chain, numbers, images, keys)) for chain, numbers in groups])

    def crop_boxes(self, keys: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """The boxes of the views, for a data pipeline that cuts them out of images of different sizes.

        Args:
          keys: int64 `[n, 2]`, (epoch, example) of every image.
          height: integer `[V n]` or scalar, image height in pixels.
          width: integer `[V n]` or scalar, image width in pixels.

        Returns:
          int32 `[V n, 4]`: y, x, height, width, inside the image; the n first views, then the n second ones, ...
        """
        parts = []
        for crop, numbers in _positions(split_chain(chain)[0] for chain in self.branches).items():
            draws = self._draw(keys, numbers, [crop])[crop.stream]
            sizes = (self._of_views(numbers, tf.convert_to_tensor(size)) for size in (height, width))
            parts.append((numbers, self._boxes(crop, numbers, keys, draws, *sizes)))
        return self._in_order(parts)

    def check_spec(self, images: tf.Tensor | tf.TensorSpec) -> None:
        """Raises a `ValueError` unless images of this shape and dtype can be augmented."""
        shape = images.shape
        check_dtype(images.dtype)
        views = [self.num_views, self.image_size, self.image_size, 3]
        if shape.rank == 5 and shape[1:] == views:
            return
        if shape.rank == 4 and shape[1:].is_fully_defined() and shape[3] == 3 and 0 not in shape[1:]:
            return
        raise ValueError(
            "`images` must have the shape [n, H, W, 3] with known H and W, or "
            f"[n, {self.num_views}, {self.image_size}, {self.image_size}, 3] if the views are already cropped: batch "
            "them, put the channels last, repeat a grey one three times, leave out alpha, and state unknown sizes by "
            f"`tf.ensure_shape`. Received: {shape}"
        )

    def _make_views(self, chain: Chain, numbers: list[int], images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """The G views with these numbers, which share a chain: `[G n, S, S, 3]`."""
        crop, flip, operators = split_chain(chain)
        is_cropped = images.shape.rank == 5
        drawing: list[RandomCrop | Operator] = [*([] if is_cropped else [crop]), *([flip] if flip else []), *operators]
        draws = self._draw(keys, numbers, drawing)
        flips = flip.chosen(draws[flip.stream]) if flip else None
        if is_cropped:
            views = _to_planes(tf.gather(images, numbers, axis=1) if len(numbers) < self.num_views else images, flips)
        else:
            boxes = self._boxes(crop, numbers, keys, draws[crop.stream], *images.shape[1:3])
            boxes = tf.split(boxes, len(numbers))
            flips = tf.split(flips, len(numbers)) if flip else [None] * len(numbers)
            crops = [crop_and_resize(images, *place, self.image_size) for place in zip(boxes, flips, strict=True)]
            views = tf.concat(crops, axis=0)
        return _to_images(apply_operators(operators, views, draws))

    def _boxes(
        self,
        crop: RandomCrop,
        numbers: list[int],
        keys: tf.Tensor,
        draws: tf.Tensor,
        heights: tf.Tensor,
        widths: tf.Tensor,
    ) -> tf.Tensor:
        """The boxes of the G views with these numbers, int32 `[G n, 4]`, inside the shared crop if there is one."""
        shared = self.shared_crop
        if shared is None:
            return crop.boxes(draws, heights, widths)
        # Every view takes the numbers of view 0.
        shared_draws = uniform(self.seed, keys, [0] * len(numbers), {shared.stream: shared.num_draws})[shared.stream]
        outer = shared.boxes(shared_draws, heights, widths)
        inner = crop.boxes(draws, outer[:, 2], outer[:, 3])
        return tf.concat((outer[:, :2] + inner[:, :2], inner[:, 2:]), axis=1)

    def _draw(
        self, keys: tf.Tensor, positions: list[int], operators: Iterable[RandomCrop | Operator]
    ) -> dict[int, tf.Tensor]:
        """The random numbers of the views at these positions, by stream of the operators: see `draws.uniform`."""
        numbers = [self.view_numbers[position] for position in positions]
        return uniform(self.seed, keys, numbers, {operator.stream: operator.num_draws for operator in operators})

    def _of_views(self, numbers: list[int], values: tf.Tensor) -> tf.Tensor:
        """Picks some views' values from those of all, `[V n, ...]`; a scalar holds for every view."""
        if values.shape.rank == 0 or len(numbers) == self.num_views:
            return values
        by_view = tf.split(values, self.num_views)
        return tf.concat([by_view[number] for number in numbers], axis=0)

    def _in_order(self, parts: list[tuple[list[int], tf.Tensor]]) -> tf.Tensor:
        """Joins parts, each with the views of some numbers, into one tensor, view after view."""
        if len(parts) == 1:
            return parts[0][1]
        by_view: dict[int, tf.Tensor] = {}
        for numbers, part in parts:
            by_view.update(zip(numbers, tf.split(part, len(numbers)), strict=True))
        return tf.concat([by_view[number] for number in range(self.num_views)], axis=0)


def crop_and_flip(augmentation: Augmentation) -> Augmentation:
    """Keeps only the crop and flip of the first branch: one view of each image, with its colours unchanged."""
    kept = tuple(op for op in augmentation.branches[0] if isinstance(op, RandomCrop | RandomFlip))
    return dataclasses.replace(augmentation, branches=(kept,), shared_crop=None)


def _positions(values: Iterable[_Value]) -> dict[_Value, list[int]]:
    """The positions of each distinct value."""
    positions: dict[_Value, list[int]] = {}
    for number, value in enumerate(values):
        positions.setdefault(value, []).append(number)
    return positions


@fused_on_cpu
def _to_planes(views: tf.Tensor, flips: tf.Tensor | None) -> tf.Tensor:
    """`[n, V, S, S, 3]` -> float32 `[V n, 3, S, S]`, mirrored where `flips`, bool `[V n]`, is true."""
    views = tf.image.convert_image_dtype(tf.transpose(views, (1, 0, 4, 2, 3)), tf.float32)
    views = tf.reshape(views, (-1, *views.shape[2:]))
    return views if flips is None else mirror(views, flips)


@fused_on_cpu
def _to_images(planes: tf.Tensor) -> tf.Tensor:
    """`[V n, 3, S, S]` -> `[V n, S, S, 3]`, in [0, 1]."""
    return tf.transpose(tf.clip_by_value(planes, 0.0, 1.0), (0, 2, 3, 1))
