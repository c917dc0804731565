"""Distillation: a student learns from a fixed teacher, without labels or with few."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_simclr import distribute
from tf_simclr.augment import Augmentation, crop_and_flip, pixels
from tf_simclr.augment.crop import crop_and_resize
from tf_simclr.keras import keras
from tf_simclr.losses.distillation import cosine_similarity, soft_cross_entropy, squared_distance
from tf_simclr.metrics import classification
from tf_simclr.models.classifier import Classifier, prepare_to_test
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.trainer import EncoderTrainer

DISTANCES = ("cosine", "squared")


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """What a student learns from: a fixed function of images.

    Keras does not look into it, so it is no part of the weights, the checkpoints and the exports of a student.

    Attributes:
      answer: From images, float32 [n, S, S, 3] in [0, 1], to logits [n, C] or representations [n, W], in inference
        mode. A variable that it uses under a strategy is made in the strategy's scope.
      width: C or W.
      image_size: S in pixels.
      identity: What its answers follow from, as JSON, which a resumed run compares.
    """

    answer: Callable[[tf.Tensor], tf.Tensor]
    width: int
    image_size: int
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, views: tf.Tensor) -> tf.Tensor:
        """Its answers to views, float [n, width], without a gradient; views of another size are resized to S."""
        answers = self.answer(_resize(views, self.image_size))
        if answers.dtype in (tf.float16, tf.bfloat16):
            answers = tf.cast(answers, tf.float32)
        return tf.ensure_shape(tf.stop_gradient(answers), [None, self.width])


def _resize(views: tf.Tensor, size: int) -> tf.Tensor:
    """Square views, float32 [n, T, T, 3], at another size, as a crop of the whole image would be."""
    side = views.shape[1]
    if side == size:
        return views
    boxes = tf.tile(tf.constant([[0, 0, side, side]]), [tf.shape(views)[0], 1])
    planes = crop_and_resize(views, boxes, None, size)
    return tf.transpose(tf.clip_by_value(planes, 0.0, 1.0), (0, 2, 3, 1))


class Taught:
    """A model that learns from a teacher.

    Attributes:
      teacher: The teacher; None in a model that only answers, such as a loaded one.
      teacher_width: How many numbers the teacher gives for an image.
    """

    teacher: Teacher | None = None
    teacher_width: int | None

    def learn_from(self, teacher: Teacher) -> None:
        """Sets the teacher; call it before the first step.

        Raises:
          ValueError: If its answers have another width.
        """
        if teacher.width != self.teacher_width:
            raise ValueError(
                f"The teacher must give {self.teacher_width} numbers for an image, as many as the student: make the "
                f"student for this teacher, or choose another one. Received: {teacher.width}"
            )
        self.teacher = teacher

    def ask_teacher(self, views: tf.Tensor) -> tf.Tensor:
        """The teacher's answers to views, float [n, teacher_width]."""
        if self.teacher is None:
            raise ValueError("A distillation needs a teacher, which is not saved with its student: set it by learn_from"
                             ". Received: none")  # fmt: skip
        return self.teacher(views)


@keras.saving.register_keras_serializable("tf_simclr")
class Distiller(Taught, Classifier):
    """A classifier that learns the class probabilities of a teacher, of one crop of every image that both see.

    `fit` takes images, or (images, labels) with -1 where the class is not known, as `Classifier` does; labels count in
    the loss only with a `label_weight`. `evaluate` judges the student by labels, as a `Classifier`.

    Source: Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised Learners" (2020), section 3.
    """

    metric_names = ("loss", "teacher_agreement", "top_1_accuracy")

    def __init__(
        self,
        encoder: keras.Model,
        classifier: keras.layers.Layer,
        *,
        teacher: Teacher | None = None,
        temperature: float = 1.0,
        label_weight: float | None = None,
        **kwargs: Any,
    ):
        """Makes the model.

        Args:
          encoder: Any tf_keras model from images, float [B, S, S, 3] in [0, 1], to representations [B, F].
          classifier: Layer from what it reads to class logits [B, C].
          teacher: Answers with logits [n, C]; it can be set later, see `learn_from`.
          temperature: t > 0, by which the logits of both are divided.
          label_weight: Weight w in (0, 1) of the cross entropy with the known labels, beside 1 - w for the teacher;
            None leaves the labels out. Both are sums over the images of a batch, divided by their number.
          **kwargs: Arguments of `Classifier`.

        Raises:
          ValueError: If a value is out of its range, or the teacher has other classes.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be positive. Received: {temperature}")
        if label_weight is not None and not 0 < label_weight < 1:
            raise ValueError(f"label_weight must be above 0 and below 1, or None. Received: {label_weight}")
        super().__init__(encoder, classifier, **kwargs)
        self.temperature = temperature
        self.label_weight = label_weight
        self.needs_labels = label_weight is not None
        self.teacher_width = self.num_classes
        if teacher is not None:
            self.learn_from(teacher)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update on this replica's part of the batch: the teacher and the student see the same views."""
        batch, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is not None:
            raise ValueError("A distillation has no weights of classes or images: leave them out. Received: weights")
        views = self.make_views(batch)
        answers = self.ask_teacher(views)
        with tf.GradientTape() as tape:
            logits = self._logits(views, training=True)
            loss = self._loss(logits, answers, labels)
            # Gradients are summed over the replicas; the objective is the mean over them.
            objective = (loss + sum(self.losses)) / distribute.num_replicas()
        gradients = tape.gradient(objective, self.trainable_variables)
        agreement = tf.equal(tf.argmax(logits, axis=1), tf.argmax(answers, axis=1))
        observed = {"loss": loss, "teacher_agreement": tf.reduce_mean(tf.cast(agreement, tf.float32))}
        if labels is not None:
            labels = classification.flat_labels(labels)
            _, accuracy = classification.classification_loss(logits, labels, total=distribute.total)
            num_known = distribute.total(classification.count_known(labels))
            self._trackers["top_1_accuracy"].update_state(accuracy, sample_weight=num_known)
        means = self.update(gradients, observed)
        if labels is None:
            del means["top_1_accuracy"]
        return means

    def _loss(self, logits: tf.Tensor, answers: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """The mean over the images of this replica."""
        if logits.dtype in (tf.float16, tf.bfloat16):
            logits = tf.cast(logits, tf.float32)
        loss = soft_cross_entropy(logits, answers, self.temperature)
        if self.label_weight is None:
            return loss
        labels = classification.flat_labels(labels)
        is_known = labels != classification.UNKNOWN
        of_labels = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(is_known, labels, 0), logits)
        of_labels = tf.reduce_mean(tf.where(is_known, of_labels, 0))
        return self.label_weight * of_labels + (1 - self.label_weight) * loss

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"temperature": self.temperature, "label_weight": self.label_weight}


@keras.saving.register_keras_serializable("tf_simclr")
class RepresentationDistiller(Taught, EncoderTrainer):
    """An encoder that learns the representations of another one, up to a linear map, without labels.

    A training step makes one crop of every image, which both encoders see, and compares W h + b with the teacher's
    representation. `fit` and `evaluate` take images, with or without labels, which nobody reads. Calling the model on
    images, uint8 or float in [0, 1], [B, S, S, 3], returns representations h, float32 [B, F].
    """

    classifier = None

    def __init__(
        self,
        encoder: keras.Model,
        *,
        image_size: int,
        teacher: Teacher | None = None,
        teacher_width: int | None = None,
        distance: str = "cosine",
        l2: float = 0.0,
        augmentation: Augmentation | None = None,
        **kwargs: Any,
    ):
        """Makes the model.

        Args:
          encoder: Any tf_keras model from images, float [B, S, S, 3] in [0, 1], to representations [B, F].
          image_size: S, height and width of the images in pixels.
          teacher: Answers with representations [n, W]; it can be set later, see `learn_from`.
          teacher_width: W; by default that of the teacher.
          distance: "cosine", 1 - cos(W h + b, r), which leaves the length of r aside; or "squared", the mean of the
            squared differences of their entries.
          l2: Coefficient of an L2 penalty, l2 / 2 * |W|^2, on the map.
          augmentation: How the images are augmented, with one view; by default crop and flip.
          **kwargs: Arguments of `keras.Model`.

        Raises:
          ValueError: If there is no such distance, or neither a teacher nor a width.
        """
        if distance not in DISTANCES:
            raise ValueError(f"distance must be one of {', '.join(DISTANCES)}. Received: {distance}")
        if teacher_width is None:
            if teacher is None:
                raise ValueError("A RepresentationDistiller needs a teacher, or teacher_width. Received: neither")
            teacher_width = teacher.width
        if augmentation is None:
            augmentation = crop_and_flip(Augmentation(image_size))
        super().__init__(encoder, augmentation, image_size, ["loss", "teacher_similarity"], **kwargs)
        self.projection_head = ProjectionHead(0)
        self.distance = distance
        self.l2 = l2
        self.teacher_width = teacher_width
        representation = self.symbolic_representation()
        self.teacher_map = keras.layers.Dense(
            teacher_width,
            kernel_regularizer=keras.regularizers.L2(l2 / 2) if l2 else None,
            dtype="float64" if representation.dtype == tf.float64 else "float32",
            name="teacher_map",  # by which weights files leave it out
        )
        self.projection_head(representation)
        self.teacher_map(representation)
        if teacher is not None:
            self.learn_from(teacher)
        self.built = True  # all weights exist

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.encoder(pixels.to_unit(images), training=training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update on this replica's part of the batch: the teacher and the student see the same views."""
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        views = self.make_views(batch)
        answers = self.ask_teacher(views)
        with tf.GradientTape() as tape:
            observed = self._compare(self.encoder(views, training=True), answers)
            # Gradients are summed over the replicas; the objective is the mean over them.
            objective = (observed["loss"] + sum(self.losses)) / distribute.num_replicas()
        return self.update(tape.gradient(objective, self.trainable_variables), observed)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The same on images as the evaluation of a run prepares them, without augmentation."""
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        images, num_local = self.at_least_one(batch["images"] if isinstance(batch, dict) else batch)
        images = prepare_to_test(images, self.image_size)
        pairs = self.encoder(images, training=False), self.ask_teacher(images)
        observed = self._compare(*(distribute.gather(one[:num_local]) for one in pairs))
        count = distribute.total(num_local)
        return self.observe({name: (value, count) for name, value in observed.items()})

    def _compare(self, representations: tf.Tensor, answers: tf.Tensor) -> dict[str, tf.Tensor]:
        """The loss and the mean cosine over these images."""
        mapped = self.teacher_map(representations)
        similarity = cosine_similarity(mapped, answers)
        loss = 1 - similarity if self.distance == "cosine" else squared_distance(mapped, answers)
        return {"loss": loss, "teacher_similarity": similarity}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "teacher_width": self.teacher_width,
            "distance": self.distance,
            "l2": self.l2,
        }
