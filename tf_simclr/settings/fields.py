"""The settings, section by section, as frozen dataclasses; the whole run is in `run_config`.

The defaults are the reference's. Each setting is declared here, once. Its check, its flag, its entries in --help and
docs/settings.md, whether a resumed run may change it, and what a model card says about it follow from that.
"""

import dataclasses
from typing import Literal

from tf_simclr.settings import rules
from tf_simclr.settings.declaration import PRETRAINING, expand_paths, setting

_RESNET = ("model.encoder", "resnet")
_WITH_TEMPERATURE = ("model.loss", "nt_xent", "dcl", "dclw", "nt_logistic", "nt_logistic_semi_hard", "supcon")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from."""

    dataset: str = setting(
        "imagenet2012", "A TFDS data set by name, shapes (embedded) or folder (your own images, in data_dir).",
        flag="dataset",
    )  # fmt: skip
    data_dir: str | None = setting(
        None, "Folders, patterns, lists, archives, COCO, TFRecord, Parquet or .npz files, or where TFDS keeps sets.",
        flag="data_dir", resumable=True, card="shorten", is_path=True,
    )  # fmt: skip
    eval_data_dir: str | None = setting(
        None, "Labelled images for the evaluation, if data_dir does not hold them.",
        flag="eval_data_dir", resumable=True, card="shorten", is_path=True,
    )  # fmt: skip
    image_feature: str | None = setting(
        None, "Name of the image in TFRecord files, Parquet files and TFDS; none finds it by name or type."
    )
    label_feature: str | None = setting(None, "Name of the class there.")
    use_labels: bool = setting(
        True, "Whether folders, columns or fields of the images in data_dir are classes; False holds none of them out.",
        flag="use_labels", needs=("data.dataset", "folder"),
    )  # fmt: skip
    max_pixels: int = setting(100_000_000, "Images with more pixels count as broken.", rule=rules.AT_LEAST_1)
    max_broken_fraction: float = setting(
        0.05, "A run stops if more than this share of its files is broken.",
        rule=rules.SHARE, flag="max_broken_fraction", resumable=True,
    )  # fmt: skip
    train_split: str = setting("train", "TFDS split to train on.", flag="train_split")
    eval_split: str = setting("validation", "TFDS split to evaluate on.", flag="eval_split", resumable=True)
    image_size: int = setting(
        224, "Side in pixels of the encoder's input, and of the views unless augmentation.view_size is set.",
        rule=rules.PIXELS, flag="image_size",
    )  # fmt: skip
    label_percent: int = setting(
        100, "Share of every class's labels, in percent, that a training may see; the evaluation sees all.",
        rule=rules.PERCENT, flag="label_percent",
    )  # fmt: skip
    cache: Literal["none", "memory", "disk"] = setting(
        "none", "Keeps encoded images in memory or decoded ones on disk, in model_dir; small images are kept anyway.",
        resumable=True,
    )  # fmt: skip
    service: tuple[str, ...] = setting(
        (), "Addresses, host:port, of tf.data services that decode and crop.",
        flag="data_service", resumable=True, card="leave_out",
    )  # fmt: skip

    def __post_init__(self) -> None:
        expand_paths(self)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Encoder, heads and loss."""

    encoder: str = setting(
        "resnet", "Name of the encoder; the settings from resnet_depth to final_width apply to resnet only.",
        flag="encoder",
    )  # fmt: skip
    resnet_depth: Literal[10, 18, 34, 50, 101, 152, 200] = setting(
        50, "Depth of the ResNet.", flag="resnet_depth", needs=_RESNET
    )
    width_multiplier: float = setting(
        1.0, "Multiplier of the encoder's channels.", rule=rules.POSITIVE, flag="width_multiplier", needs=_RESNET
    )
    stem: Literal["auto", "cifar", "strided", "imagenet"] = setting(
        "auto", "The first layers; auto uses cifar up to 32 px and imagenet above.", flag="stem", needs=_RESNET
    )
    num_groups: int = setting(4, "Groups of blocks to build, counted from the first.", rule=rules.GROUPS, needs=_RESNET)
    sk_ratio: float | None = setting(
        None, "Selective kernels and ResNet-D with this ratio (SimCLR v2: 0.0625).",
        rule=rules.POSITIVE_SHARE, flag="sk_ratio", unset=0,
        needs=_RESNET,
    )  # fmt: skip
    se_ratio: float | None = setting(
        None,
        "Squeeze and excitation with this ratio.",
        rule=rules.POSITIVE_SHARE,
        flag="se_ratio",
        unset=0,
        needs=_RESNET,
    )
    final_width: int | None = setting(
        None, "Channels of a last 1x1 convolution, and so of the representations; none leaves it out.",
        rule=rules.AT_LEAST_1, needs=_RESNET,
    )  # fmt: skip
    global_bn: bool = setting(True, "Computes batch-norm statistics over all replicas.", flag="global_bn")
    batch_norm_momentum: float = setting(
        0.9, "Share of the moving averages that a step keeps.", rule=rules.SHARE, flag="batch_norm_decay"
    )
    num_proj_layers: int = setting(3, "Layers of the projection head.", rule=rules.AT_LEAST_0, flag="num_proj_layers")
    proj_hidden_dim: int | None = setting(
        None, "Width of the layers before the projections; none takes that of the representations.",
        rule=rules.AT_LEAST_1, flag="proj_hidden_dim", unset=0,
    )  # fmt: skip
    proj_out_dim: int = setting(128, "Width of the projections.", rule=rules.AT_LEAST_1, flag="proj_out_dim")
    loss: str = setting("nt_xent", "Name of the contrastive loss.", flag="loss", needs=PRETRAINING)
    temperature: float = setting(
        0.1, "Temperature of the contrastive loss.", rule=rules.POSITIVE, flag="temperature", needs=_WITH_TEMPERATURE
    )
    hidden_norm: bool = setting(True, "Scales projections to unit length.", flag="hidden_norm", needs=PRETRAINING)
    margin: float = setting(
        0.4, "Margin of the losses margin_triplet, by which positives must be more similar than negatives.",
        rule=rules.AT_LEAST_0, flag="margin",
        needs=("model.loss", "margin_triplet", "margin_triplet_semi_hard"),
    )  # fmt: skip
    memory_size: int | None = setting(
        None, "Projections of a momentum encoder that are kept as more negatives (SimCLR v2: 65536).",
        rule=rules.AT_LEAST_1, flag="memory_size", unset=0,
        needs=PRETRAINING,
    )  # fmt: skip
    memory_momentum: float = setting(
        0.999,
        "Share of the momentum encoder's weights that a step keeps.",
        rule=rules.SHARE,
        needs=("model.memory_size",),
    )
    objective_weight: float = setting(
        2.0, "Factor of the contrastive loss: the reference's is the sum over the two views, twice the paper's.",
        rule=rules.POSITIVE,
        needs=PRETRAINING,
    )  # fmt: skip
    online_classifier: bool = setting(
        True, "Trains a linear classifier alongside, if there are labels.",
        flag="lineareval_while_pretraining",
        needs=PRETRAINING,
    )  # fmt: skip
    classifier_layer: int = setting(
        0, "What a classifier reads: 0 the representation, i the i-th layer of the head, -1 the last.",
        rule=rules.LAYER, flag="ft_proj_selector",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """Training on labels from the weights of a checkpoint."""

    after_block: int | None = setting(
        None, "Last frozen part: 0 the stem, 1 to 3 a group of blocks, 4 the whole encoder; none freezes nothing.",
        rule=rules.BLOCK, flag="fine_tune_after_block", unset=-1,
        needs=("train_mode", "finetune", "supervised"),
    )  # fmt: skip
    zero_init: bool = setting(
        False, "Starts the classifier at zero instead of at the checkpoint's or random weights.",
        flag="zero_init_logits_layer",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The update rule and its schedule."""

    name: Literal["lars", "momentum", "adam", "adamw", "muon"] = setting(
        "lars", "The optimizer; momentum is SGD with Nesterov momentum.", flag="optimizer"
    )
    base_learning_rate: float = setting(
        0.3, "Learning rate before learning_rate_scaling.", rule=rules.AT_LEAST_0, flag="learning_rate"
    )
    learning_rate_scaling: Literal["linear", "sqrt", "none"] = setting(
        "linear", "Peak learning rate for a batch of B: base * B / 256 (linear), base * sqrt(B) (sqrt) or base (none).",
        flag="learning_rate_scaling",
    )  # fmt: skip
    warmup_epochs: float = setting(10.0, "Epochs of linear warm-up.", rule=rules.EPOCHS, flag="warmup_epochs")
    momentum: float = setting(
        0.9,
        "Momentum of the optimizers lars, momentum and muon.",
        rule=rules.BELOW_1,
        flag="momentum",
        needs=("optimizer.name", "lars", "momentum", "muon"),
    )
    weight_decay: float = setting(
        1e-6, "Weight decay; muon wants about 10 / (learning rate * steps).", rule=rules.AT_LEAST_0, flag="weight_decay"
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, size and bookkeeping of the training."""

    # At least 2: the loss compares an image with the others in its batch.
    global_batch_size: int | None = setting(
        None, "Images per step, over all replicas; none takes 512, or the largest power of two that fewer images fill.",
        rule=rules.AT_LEAST_2, flag="train_batch_size",
    )  # fmt: skip
    epochs: int = setting(100, "Epochs to train for.", rule=rules.EPOCHS, flag="train_epochs")
    steps: int | None = setting(
        None, "Steps to train for, instead of epochs.", rule=rules.AT_LEAST_1, flag="train_steps", unset=0
    )
    microbatch_size: int | None = setting(
        None, "Images that a replica encodes at a time; the gradient is still that of the whole batch.",
        rule=rules.AT_LEAST_1, flag="microbatch_size", unset=0,
    )  # fmt: skip
    checkpoint_epochs: float = setting(
        1.0, "Epochs between checkpoints.", rule=rules.POSITIVE_EPOCHS, flag="checkpoint_epochs", resumable=True
    )
    checkpoint_steps: int | None = setting(
        None, "Steps between checkpoints, instead of checkpoint_epochs.",
        rule=rules.AT_LEAST_1, flag="checkpoint_steps", unset=0, resumable=True,
    )  # fmt: skip
    keep_checkpoints: int = setting(
        5, "Checkpoints to keep.", rule=rules.AT_LEAST_1, flag="keep_checkpoint_max", resumable=True
    )
    precision: Literal["auto", "float32", "mixed_bfloat16"] = setting(
        "auto", "Precision of the training; auto uses mixed_bfloat16 if the device supports it.", flag="precision"
    )
    jit_compile: Literal["auto", "on", "off"] = setting(
        "auto", "Compiles the step with XLA; auto does so on a single GPU, and a TPU always does."
    )
    steps_per_execution: int = setting(
        1, "Steps per call of the training graph; more keep accelerators busy.", rule=rules.AT_LEAST_1
    )
    log_every_seconds: float = setting(
        10.0, "Seconds between reports of the speed.", rule=rules.AT_LEAST_0, resumable=True
    )
    log_every_steps: int = setting(
        10, "Steps that a line of metrics.jsonl averages.", rule=rules.AT_LEAST_1, resumable=True
    )
    health: bool = setting(
        True, "Measures the encoder on held-out images while it pretrains, for at most 3 % of the time.",
        flag="health", resumable=True,
        needs=PRETRAINING,
    )  # fmt: skip
    health_every_steps: int | None = setting(
        None, "Steps between two such measurements; none takes an epoch, or as many as the 3 % ask for.",
        rule=rules.AT_LEAST_1, flag="health_every_steps", unset=0, resumable=True,
        needs=PRETRAINING,
    )  # fmt: skip
    deterministic: bool = setting(
        False, "Makes runs bit-identical on accelerators, too; some kernels become slower.", flag="deterministic"
    )
