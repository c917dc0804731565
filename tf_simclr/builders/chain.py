"""The operators that make the views of a run, from its settings."""

from tf_simclr.augment import OPERATORS, SIMCLR_NAMES, WHOLE_IMAGE, Chain, RandomCrop, simclr_chain
from tf_simclr.settings import SETTINGS, AugmentationConfig, check_name

# It draws other numbers than the crops of the views. Like the stream of an operator, it never changes.
_SHARED_CROP_STREAM = 10


def build_branches(settings: AugmentationConfig, num_views: int) -> tuple[Chain, ...]:
    """The chain of operators of each view.

    Raises:
      ValueError: If an operator's name is unknown, or the operators do not fit together.
    """
    chain = build_chain(settings)
    other = (WHOLE_IMAGE,) if settings.one_branch else chain
    return (chain, *[other] * (num_views - 1))


def build_chain(settings: AugmentationConfig) -> Chain:
    """The operators that make a view.

    Raises:
      ValueError: If an operator's name is unknown, or the operators do not fit together.
    """
    names = settings.operators
    named = dict(zip(SIMCLR_NAMES, _simclr_chain(settings), strict=True)) | OPERATORS
    for name in names:
        check_name("augmentation.operators", name, named)
    for name in settings.more_operators:
        check_name("augmentation.more_operators", name, OPERATORS)
    title = SETTINGS["augmentation.operators"].title
    if "crop" in names[1:]:
        raise ValueError(f"{title} must name crop first, or leave it out. Received: {','.join(names)}")
    crop = () if "crop" in names else (WHOLE_IMAGE,)
    chain = crop + tuple(named[name] for name in (*names, *settings.more_operators))
    if len({operator.stream for operator in chain}) < len(chain):
        other = SETTINGS["augmentation.more_operators"].title
        raise ValueError(
            f"{title} and {other} must name each operator once, and at most one policy of AutoAugment. "
            f"Received: {','.join((*names, *settings.more_operators))}"
        )
    return chain


def build_shared_crop(settings: AugmentationConfig) -> RandomCrop | None:
    """The crop that all views of an image share, if the run has one."""
    if not settings.shared_crop:
        return None
    return RandomCrop(settings.crop_sampler, (settings.crop_min_area, 1.0), stream=_SHARED_CROP_STREAM)


def _simclr_chain(settings: AugmentationConfig) -> Chain:
    return simclr_chain(
        crop_sampler=settings.crop_sampler,
        crop_area=(settings.crop_min_area, 1.0),
        jitter_strength=settings.color_jitter_strength,
        jitter_probability=settings.color_jitter_probability,
        brightness=settings.brightness,
        grayscale_probability=settings.grayscale_probability,
        blur_probability=settings.blur_probability,
    )
