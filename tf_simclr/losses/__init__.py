"""Contrastive losses as pure functions."""

from tf_simclr.losses.nt_xent import nt_xent_logits, nt_xent_loss

__all__ = ["nt_xent_logits", "nt_xent_loss"]
