"""From a source to batches."""

from tf_simclr.data.batches.train import eval_dataset, train_dataset

__all__ = ["eval_dataset", "train_dataset"]
