"""Where images come from, and one way in for all of them."""

from tf_simclr.data.sources.base import (
    ArraySource,
    FileSource,
    Source,
    holdout,
    in_memory,
    number_classes,
)
from tf_simclr.data.sources.files import from_folder, split_folders
from tf_simclr.data.sources.open import open_images, open_train_and_eval
from tf_simclr.data.sources.streams import TfdsSource, TfrecordSource

__all__ = [
    "ArraySource",
    "FileSource",
    "Source",
    "TfdsSource",
    "TfrecordSource",
    "from_folder",
    "holdout",
    "in_memory",
    "number_classes",
    "open_images",
    "open_train_and_eval",
    "split_folders",
]
