"""SavedModels of an encoder that serve without this package."""

from tf_simclr.export.saved_model import export_encoder, verify

__all__ = ["export_encoder", "verify"]
