"""SimCLR for TensorFlow 2 and Keras: contrastive pretraining of image encoders."""

from tf_simclr.activation_memory import suggest_microbatch
from tf_simclr.augment import Augmentation
from tf_simclr.export.saved_model import export_encoder
from tf_simclr.losses import NTXent
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS
from tf_simclr.runs.architecture import load_reference
from tf_simclr.schedules import WarmupCosine

__version__ = "0.1.0"

__all__ = [
    "LARS",
    "Augmentation",
    "Classifier",
    "NTXent",
    "ProjectionHead",
    "SimCLR",
    "WarmupCosine",
    "export_encoder",
    "load_reference",
    "resnet",
    "suggest_microbatch",
]
