"""Every loss, and what else learns without labels, makes representations of the embedded data that know its classes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from sklearn.neighbors import KNeighborsClassifier

from tf_simclr.augment import FIRST_SMALL_VIEW, Augmentation, simclr_chain
from tf_simclr.data.sources import shapes
from tf_simclr.keras import keras
from tf_simclr.losses import LOSSES
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.momentum import MomentumSimCLR
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import Muon
from tf_simclr.schedules import WarmupCosine

NUM_TRAIN, STEPS, BATCH = 768, 150, 128


@dataclasses.dataclass(frozen=True)
class Shapes:
    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


@pytest.fixture(scope="module")
def images():
    drawn, labels = shapes.draw(NUM_TRAIN + 500, np.random.default_rng(0))
    return Shapes(drawn[:NUM_TRAIN], labels[:NUM_TRAIN], drawn[NUM_TRAIN:], labels[NUM_TRAIN:])


def make(**changes):
    keras.utils.set_random_seed(0)
    chain = simclr_chain(crop_area=(0.4, 1.0), jitter_strength=0.5, blur_probability=0.0, grayscale_probability=0.4)
    kind = changes.pop("kind", SimCLR)
    arguments = {"loss": LOSSES["nt_xent"](0.2), "augmentation": Augmentation(24, branches=(chain, chain))} | changes
    encoder = resnet(10, 0.25, "strided", num_groups=3, dtype="mixed_bfloat16")
    model = kind(encoder, ProjectionHead(2, 32), image_size=32, **arguments)
    model.compile(Muon(WarmupCosine(0.024, STEPS, 15), weight_decay=0.01))
    return model


def accuracy(model, images):
    """Top-1 by the five nearest training images, of the encoder's representations."""
    of = [model.encoder.predict(some / np.float32(255), verbose=0) for some in (images.train, images.test)]
    judge = KNeighborsClassifier(5, metric="cosine").fit(of[0], images.labels)
    return judge.score(of[1], images.test_labels)


@pytest.fixture(scope="module")
def untrained(images):
    return accuracy(make(), images)


def learn(model, images, labels=None):
    data = tf.data.Dataset.from_tensor_slices(images.train if labels is None else (images.train, labels))
    data = data.shuffle(NUM_TRAIN, seed=0).repeat().batch(BATCH)
    model.fit(data, steps_per_epoch=STEPS, verbose=0)
    return accuracy(model, images)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_makes_representations_that_know_the_classes(name, images, untrained):
    loss = LOSSES[name](**({} if "margin" in name else {"temperature": 0.2}))
    labels = np.where(np.arange(NUM_TRAIN) % 2, images.labels, -1) if name == "supcon" else None  # Half are known.
    print("RESULT", name, untrained, learn(make(loss=loss), images, labels))
