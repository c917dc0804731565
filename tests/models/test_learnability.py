"""Every loss makes representations of the embedded data that know its classes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from sklearn.neighbors import KNeighborsClassifier

from tf_simclr.augment import Augmentation, simclr_chain
from tf_simclr.data.sources import shapes
from tf_simclr.keras import keras
from tf_simclr.losses import LOSSES
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import Muon
from tf_simclr.schedules import WarmupCosine

NUM_TRAIN, NUM_TEST, STEPS, BATCH = 2000, 1000, 150, 256


@dataclasses.dataclass(frozen=True)
class Shapes:
    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


@pytest.fixture(scope="module")
def images():
    drawn, labels = shapes.draw(NUM_TRAIN + NUM_TEST, np.random.default_rng(0))
    return Shapes(drawn[:NUM_TRAIN], labels[:NUM_TRAIN], drawn[NUM_TRAIN:], labels[NUM_TRAIN:])


def make(loss, steps):
    keras.utils.set_random_seed(0)
    chain = simclr_chain(crop_area=(0.4, 1.0), jitter_strength=0.5, blur_probability=0.0, grayscale_probability=0.4)
    encoder = resnet(10, 0.5, "strided", num_groups=3)
    views = Augmentation(24, branches=(chain, chain))
    model = SimCLR(encoder, ProjectionHead(2, 32), image_size=32, loss=loss, augmentation=views)
    model.compile(Muon(WarmupCosine(0.024, steps, steps // 10), weight_decay=0.01))
    return model


def accuracy(model, images):
    """Top-1 by the five nearest training images, of the encoder's representations."""
    of = [model.encoder.predict(some / np.float32(255), verbose=0) for some in (images.train, images.test)]
    judge = KNeighborsClassifier(5, metric="cosine").fit(of[0], images.labels)
    return judge.score(of[1], images.test_labels)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "nt_xent" else pytest.mark.slow) for name in LOSSES]
)
def test_a_loss_makes_representations_that_know_the_classes(name, images):
    loss = LOSSES[name](**({} if "margin" in name else {"temperature": 0.2}))
    steps = STEPS * (3 if name.endswith("semi_hard") else 1)  # Few negatives count, so a step teaches less.
    model = make(loss, steps)
    untrained = accuracy(model, images)
    labels = np.where(np.arange(NUM_TRAIN) % 2, images.labels, -1)  # Half of them are known.
    data = tf.data.Dataset.from_tensor_slices((images.train, labels) if loss.uses_labels else images.train)
    model.fit(data.shuffle(NUM_TRAIN, seed=0).repeat().batch(BATCH), steps_per_epoch=steps, verbose=0)
    # Untrained, it is 0.11. NT-Xent reaches 0.41, and the weakest, NT-Logistic, 0.30.
    assert accuracy(model, images) > untrained + 0.12
