"""What an export is fitted on."""

import numpy as np
from sklearn.decomposition import PCA

from tf_simclr.data import sources
from tf_simclr.export import publish
from tf_simclr.keras import keras
from tf_simclr.settings import RunConfig, override


def test_principal_components_are_those_of_images_spread_over_all(monkeypatch):
    monkeypatch.setattr(publish, "MAX_PCA_IMAGES", 12)
    images = np.random.default_rng(0).integers(0, 256, [40, 4, 4, 3], np.uint8)
    encoder = keras.Sequential([keras.Input([4, 4, 3]), keras.layers.Flatten()])
    config = override(RunConfig(), {"data.image_size": 4, "export.pca_dim": 3, "eval.batch_size": 5})
    mean, axes = publish._fit_pca(config, encoder, sources.ArraySource(images))
    rows = np.linspace(0, 39, 12).astype(int)
    expected = PCA(3).fit(images[rows].reshape(12, -1) / 255)
    np.testing.assert_allclose(mean, expected.mean_, atol=1e-5)
    np.testing.assert_allclose(np.abs(axes @ expected.components_.T), np.eye(3), atol=1e-4)
