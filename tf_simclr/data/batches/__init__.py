"""Makes batches from a source."""

from tf_simclr.data.batches.eval import eval_dataset
from tf_simclr.data.batches.train import train_dataset

__all__ = ["eval_dataset", "train_dataset"]
