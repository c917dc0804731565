"""Sources of images, and the functions that open them."""

from tf_simclr.data.sources.array import ArraySource
from tf_simclr.data.sources.base import Sample, Source, can_be_learnt, holdout, in_part, number_classes
from tf_simclr.data.sources.files import FileSource
from tf_simclr.data.sources.folders import from_folder
from tf_simclr.data.sources.open import open_images, open_train_and_eval
from tf_simclr.data.sources.splits import Split, split_folders
from tf_simclr.data.sources.tfds import TfdsSource
from tf_simclr.data.sources.tfrecord import TfrecordSource

__all__ = [
    "ArraySource",
    "FileSource",
    "Sample",
    "Source",
    "Split",
    "TfdsSource",
    "TfrecordSource",
    "can_be_learnt",
    "from_folder",
    "holdout",
    "in_part",
    "number_classes",
    "open_images",
    "open_train_and_eval",
    "split_folders",
]
