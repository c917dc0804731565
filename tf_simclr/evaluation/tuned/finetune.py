"""Fine-tuning of the whole encoder with a new linear classifier, and the same training from random weights.

Sources: Chen et al. (2020), appendix B.5 for few labels, and B.8, after Kornblith et al., "Do Better ImageNet Models
Transfer Better?" (2019), for all of them.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np
from absl import logging
from scipy.special import log_softmax, softmax

from tf_simclr import files
from tf_simclr.data import sources
from tf_simclr.data.sources import subsets
from tf_simclr.evaluation.cache import Images, digest_of, remove_older
from tf_simclr.evaluation.encoders import architecture
from tf_simclr.evaluation.scores import Scores
from tf_simclr.evaluation.tuned import training
from tf_simclr.evaluation.tuned.training import Material, Recipe
from tf_simclr.metrics.classification import top_k_accuracy
from tf_simclr.models.classifier import Classifier
from tf_simclr.settings import RunConfig

_HELD_OUT_FRACTION = 0.1
# A draw of its own, so that what is held out has nothing to do with who is among the few labels.
_HELD_OUT_DRAW = -1
# The log-loss of a training that has diverged: larger than that of any other.
_DIVERGED = 1e30

# (name of the grid, whether it starts from pretrained weights) -> learning rates, and weight decays that are divided by
# the rate. The paper's are those of appendix B.8; the small ones go through the rates alone.
_GRIDS: dict[tuple[str, bool], tuple[Sequence[float], Sequence[float]]] = {
    ("paper", True): (np.logspace(-4, -1, 7).tolist(), [0.0, *np.logspace(-6, -3, 7).tolist()]),
    ("paper", False): (np.logspace(-3, 0, 7).tolist(), np.logspace(-5, -1.5, 8).tolist()),
    ("small", True): ((1e-3, 1e-2, 1e-1), (0.0,)),
    ("small", False): ((1e-2, 1e-1, 1.0), (0.0,)),
}

# Appendix B.5: 60 epochs on 1 % of the labels, 30 on 10 %. Between them and above, the nearer of the two rules.
_FEW_LABELS_RATE, _FEW_EPOCHS, _MANY_EPOCHS, _MANY_PERCENT = 0.05, 60, 30, 10


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Trains an encoder and a new classifier on labels, and predicts the classes of the test images.

    With several recipes, trains each of them on nine tenths of the labelled images. The one that is right most often on
    the others wins, by the least log-loss if two are equal. The winner is then trained on all labelled images.

    Attributes:
      name: Prefix of its metrics in `result.json`.
      is_pretrained: Whether it starts from the run's encoder, or else from the random weights of the run's seed.
      percent: Share of the labels, chosen by `Source.few_labels`.
      recipes: How to train, to choose from.
      draw: Number of the draw of the labels.
      grid: Where the recipes are from: "small" or "paper" of the settings, or "fixed" for a single one.
    """

    name: str
    is_pretrained: bool
    percent: int
    recipes: tuple[Recipe, ...]
    draw: int = 0
    grid: str = "fixed"

    @property
    def title(self) -> str:
        """Its name in reports, with a place for `labels` of its scores."""
        return ("fine-tuned on" if self.is_pretrained else "from scratch on") + " {labels:,} labels"

    def __call__(self, material: Material) -> Scores:
        """The probabilities of the classifier, and how it was trained.

        Raises:
          ValueError: If the labels do not allow a choice among several recipes, or are not known before images are
            read.
        """
        source = self.labelled(material.train.source)
        place = material.folder / f"{material.encoder.name}_{self.name}_runs_{self.key(material)}"
        place.mkdir(exist_ok=True)
        remove_older(place)
        recipe, held_out = self._choose(material, source, place)
        config = self._child(material, recipe, source, place / "chosen")
        logging.info("%s: %s", self.title.format(labels=source.num_examples), _text(recipe))
        model = training.fit(config, source, material.model.distribute_strategy)
        logits, _ = training.predict(model, material.test, f"test images, {self.name}", config.eval.batch_size)
        settings = {
            "labels": source.num_examples,
            "label_draw": self.draw,
            "grid": self.grid,
            "grid_cells": len(self.recipes),
            "learning_rate_scaling": recipe.scaling,
            "steps": config.total_steps(source.num_examples),
            "batch_size": config.global_batch_size(source.num_examples),
            "batch_norm_momentum": config.model.batch_norm_momentum,
            "held_out_fraction": _HELD_OUT_FRACTION if held_out else 0.0,
            "held_out_images": held_out,
            "seed": config.seed,
        }
        chosen = {"learning_rate": recipe.learning_rate, "weight_decay": recipe.weight_decay}
        return Scores(lambda rows: softmax(logits[rows].astype(np.float64), axis=1), logits.shape, settings, chosen)

    def check(self, source: sources.Source, num_replicas: int = 1) -> None:
        """Raises a `ValueError` if the labels of a source do not allow this training; it costs hours to find out later.

        Where a share of the labels is a data set of its own, a `FileNotFoundError` if it is missing.
        """
        labelled = self.labelled(source)
        if len(self.recipes) > 1:
            labelled, _ = _hold_out(labelled)
        if labelled.num_examples < num_replicas:
            raise ValueError(
                f"{self.name} needs as many labelled images to train on as there are devices: leave it out "
                "(--eval_protocols, --label_efficiency), or use --mode=eval --strategy=default. "
                f"Received: {labelled.num_examples} and {num_replicas}"
            )

    def labelled(self, source: sources.Source) -> sources.Source:
        """The images of a labelled source that it learns from."""
        return source if self.percent == 100 else source.few_labels(self.percent, self.draw)

    def key(self, material: Material) -> str:
        """The digest of what its weights follow from."""
        start = dict(material.encoder.identity) if self.is_pretrained else architecture(material.config)
        return digest_of(
            {
                "start": start,
                "images": material.train.fingerprint,
                "image_size": material.config.data.image_size,
                "run": training.identity_of(material.config),
                "replicas": material.model.distribute_strategy.num_replicas_in_sync,  # They decide the batch size.
                "protocol": dataclasses.asdict(self),
            }
        )

    def _choose(self, material: Material, source: sources.Source, place: pathlib.Path) -> tuple[Recipe, int]:
        """(the best recipe, the number of images that were held out to find it)."""
        if len(self.recipes) == 1:
            return self.recipes[0], 0
        rest, others = _hold_out(source)
        held_out = Images("held-out", others, material.train.num_classes)
        found = [self._judge(material, recipe, rest, held_out, place) for recipe in self.recipes]
        return self.recipes[max(range(len(found)), key=found.__getitem__)], others.num_examples

    def _child(self, material: Material, recipe: Recipe, source: sources.Source, folder: pathlib.Path) -> RunConfig:
        start = material.saved_weights() if self.is_pretrained else None
        return training.child(material, recipe, source, folder, start)

    def _judge(
        self, material: Material, recipe: Recipe, rest: sources.Source, held_out: Images, place: pathlib.Path
    ) -> tuple[float, float]:
        """(accuracy, minus the log-loss) on the images that are held out; found once."""
        folder = place / folder_of(recipe)
        path = folder / "held_out.json"
        if not path.is_file():
            config = self._child(material, recipe, rest, folder)
            logging.info("%s, %s, on the images that are not held out", self.name, _text(recipe))
            try:
                model = training.fit(config, rest, material.model.distribute_strategy)
                files.write_json(path, _measure(model, held_out, config.eval.batch_size))
            except FloatingPointError:
                logging.warning("%s, %s: the loss diverged", self.name, _text(recipe))
                files.write_json(path, {"top_1_accuracy": 0.0, "log_loss": _DIVERGED})
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # Of a whole grid, they would fill the disk.
        found = files.read_json(path)
        logging.info("%s, %s: %.2f %% of the held-out images", self.name, _text(recipe), 100 * found["top_1_accuracy"])
        return found["top_1_accuracy"], -found["log_loss"]


def _measure(model: Classifier, images: Images, batch_size: int) -> dict[str, float]:
    logits, labels = training.predict(model, images, "held-out images", batch_size)
    of_labels = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return {"top_1_accuracy": top_k_accuracy(logits, labels), "log_loss": -float(of_labels.mean())}


def _hold_out(source: sources.Source) -> tuple[sources.Source, sources.Source]:
    """(nine tenths, one tenth) of every class that has two images; the others stay in the larger part."""
    if source.labels is None:
        raise ValueError(
            "Choosing among learning rates takes images whose labels are known before they are read: put them into one "
            f"folder for each class, or use --train_mode=finetune. Received: a {type(source).__name__}"
        )
    counts = np.bincount(source.labels)
    labels = np.where(counts[source.labels] > 1, source.labels, -1)
    if (labels < 0).all():
        raise ValueError(
            "Choosing among learning rates takes a class of two images, one of which is held out. "
            f"Received: {len(labels)} images of {len(labels)} classes"
        )
    held_out = subsets.class_balanced(source.keys, labels, _HELD_OUT_FRACTION, _HELD_OUT_DRAW)
    return source.subset(np.setdiff1d(np.arange(len(labels)), held_out)), source.subset(held_out)


def folder_of(recipe: Recipe) -> str:
    """The name of the folder in which a recipe is tried."""
    return _text(recipe).replace(" ", "_")


def _text(recipe: Recipe) -> str:
    return f"learning rate {recipe.learning_rate:.4g} decay {recipe.weight_decay:.4g}"


def all_labels(config: RunConfig, *, is_pretrained: bool) -> Finetune:
    """Training on all labels, with the recipes of the grid that the config names."""
    settings = config.eval
    rates, decays = _GRIDS[settings.finetune_grid, is_pretrained]
    recipes = tuple(
        Recipe(rate, decay / rate, "none", settings.finetune_steps, 0, settings.finetune_batch_size)
        for rate in rates
        for decay in decays
    )
    return Finetune(
        "finetune" if is_pretrained else "supervised", is_pretrained, 100, recipes, grid=settings.finetune_grid
    )


def few_labels(config: RunConfig, percent: int, draw: int = 0, *, is_pretrained: bool) -> Finetune:
    """Training on a share of the labels, by the recipe of appendix B.5."""
    epochs = _FEW_EPOCHS if percent < _MANY_PERCENT else _MANY_EPOCHS
    recipe = Recipe(_FEW_LABELS_RATE, 0.0, "linear", None, epochs, config.eval.finetune_batch_size)
    name = f"{'semi_supervised' if is_pretrained else 'supervised'}_{percent}" + (f"_draw_{draw}" if draw else "")
    return Finetune(name, is_pretrained, percent, (recipe,), draw)
