"""SimCLR for TensorFlow 2 and Keras: contrastive pretraining of image encoders.

The names and the modules below are loaded when they are first used, as in SciPy: `python -m tf_simclr.compare` reads
files only, and would otherwise wait for TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_simclr.activation_memory import suggest_microbatch
    from tf_simclr.augment import Augmentation
    from tf_simclr.export.saved_model import export_encoder
    from tf_simclr.losses import NTXent
    from tf_simclr.models.classifier import Classifier
    from tf_simclr.models.heads import ProjectionHead
    from tf_simclr.models.momentum import MomentumSimCLR
    from tf_simclr.models.resnet import resnet
    from tf_simclr.models.simclr import SimCLR
    from tf_simclr.optimizers import LARS, Muon
    from tf_simclr.runs.architecture import load_reference
    from tf_simclr.schedules import WarmupCosine

__version__ = "0.1.0"

__all__ = [
    "LARS",
    "Augmentation",
    "Classifier",
    "MomentumSimCLR",
    "Muon",
    "NTXent",
    "ProjectionHead",
    "SimCLR",
    "WarmupCosine",
    "export_encoder",
    "load_reference",
    "resnet",
    "suggest_microbatch",
]

# The module that each name is from.
_HOMES = {
    "LARS": "optimizers",
    "Augmentation": "augment",
    "Classifier": "models.classifier",
    "MomentumSimCLR": "models.momentum",
    "Muon": "optimizers",
    "NTXent": "losses",
    "ProjectionHead": "models.heads",
    "SimCLR": "models.simclr",
    "WarmupCosine": "schedules",
    "export_encoder": "export.saved_model",
    "load_reference": "runs.architecture",
    "resnet": "models.resnet",
    "suggest_microbatch": "activation_memory",
}


def __getattr__(name: str) -> Any:
    """Loads a public name, or a module such as `tf_simclr.losses`."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
