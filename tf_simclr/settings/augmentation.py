"""The settings of the views."""

import dataclasses
from typing import Literal

from tf_simclr.settings import rules
from tf_simclr.settings.declaration import PRETRAINING, setting

_SMALL_VIEWS = ("augmentation.num_small_views",)


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """How views are made from an image."""

    view_size: int | None = setting(
        None, "Height and width of the views in pixels; none uses data.image_size.", rule=rules.PIXELS
    )
    crop_sampler: Literal["tensorflow", "uniform_area"] = setting(
        "tensorflow", "Draws crops as the reference does (tensorflow) or as the paper describes it (uniform_area)."
    )
    crop_min_area: float = setting(0.08, "Smallest crop, as a share of the image.", rule=rules.POSITIVE_SHARE)
    color_jitter_strength: float = setting(
        1.0, "Strength of the colour jitter.", rule=rules.AT_LEAST_0, flag="color_jitter_strength", needs=PRETRAINING
    )
    color_jitter_probability: float = setting(
        0.8, "Share of the views with colour jitter.", rule=rules.SHARE, needs=PRETRAINING
    )
    brightness: Literal["multiplicative", "additive"] = setting(
        "multiplicative",
        "Changes brightness as SimCLR v2 does (multiplicative) or as v1 does (additive).",
        needs=PRETRAINING,
    )
    grayscale_probability: float = setting(
        0.2, "Share of the views without colour.", rule=rules.SHARE, needs=PRETRAINING
    )
    blur_probability: float = setting(0.5, "Share of the views that are blurred.", rule=rules.SHARE, needs=PRETRAINING)
    more_operators: tuple[str, ...] = setting(
        (), "Names of further operators, applied after the others.", flag="more_operators", needs=PRETRAINING
    )
    operators: tuple[str, ...] = setting(
        ("crop", "flip", "jitter", "grayscale", "blur"),
        "Operators that make a view, in order: crop comes first, or is left out to take whole images.",
        flag="operators",
    )  # fmt: skip
    one_branch: bool = setting(
        False, "Applies the operators to the first view only, and to as large a share of the small ones.",
        flag="one_branch",
        needs=PRETRAINING,
    )  # fmt: skip
    shared_crop: bool = setting(
        False, "Crops each image once for all its views, before the operators.", flag="shared_crop", needs=PRETRAINING
    )
    num_views: int = setting(
        2, "Views of every image, without the small ones.", rule=rules.VIEWS, flag="num_views", needs=PRETRAINING
    )
    num_small_views: int = setting(
        0, "Small views of every image, of small crops, in a pass of their own (multi-crop).",
        rule=rules.SMALL_VIEWS, flag="num_small_views",
        needs=PRETRAINING,
    )  # fmt: skip
    small_view_size: int | None = setting(
        None, "Height and width of the small views in pixels; none takes half of the others'.",
        rule=rules.PIXELS, flag="small_view_size",
        needs=_SMALL_VIEWS,
    )  # fmt: skip
    small_crop_min_area: float = setting(
        0.05,
        "Smallest crop of the small views, as a share of the image.",
        rule=rules.POSITIVE_SHARE,
        needs=_SMALL_VIEWS,
    )
    small_crop_max_area: float = setting(
        0.4, "Largest crop of the small views.", rule=rules.POSITIVE_SHARE, needs=_SMALL_VIEWS
    )
    small_view_pairs: Literal["large", "all"] = setting(
        "large",
        "Compares small views with the others only, for which they are no candidates (large), or all with all.",
        needs=_SMALL_VIEWS,
    )
