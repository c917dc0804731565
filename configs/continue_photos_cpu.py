"""Continued pretraining of a CIFAR-10 encoder on a folder of a few thousand photographs, on two CPU cores.

    python run.py --mode=train_then_eval --config=configs/continue_photos_cpu.py \\
      --checkpoint=runs/cifar10_lars --data_dir=flowers

The checkpoint is a run of configs/cifar10_lars.py; one of configs/shapes.py fits as well. It decides the architecture:
the encoder and the head are those of that config. The stem, which "auto" would choose by the image size, is therefore
named here. The network is convolutional, so it takes larger images than it has seen: 64 px with views of 48 px, twice
the sizes of CIFAR-10 and in the same proportion. An image costs four times as much as there, as with
configs/photos_cpu.py, which trains the same network from random weights. The learning rate is a third of that of
configs/cifar10_lars.py (docs/continued_pretraining.md).

Measured with 11 of the 60 epochs on 4,317 photographs of flowers, from an encoder of 20 epochs on CIFAR-10, seeds 0
and 1: 67.6 and 69.4 % linear, 63.4 and 64.1 % kNN top-1 on 448 held-out ones; the frozen start has 68.1 and 67.6 %,
59.8 and 59.8 %, and as many steps from scratch 62.3 and 63.2 %, 55.8 and 56.2 % (docs/continued_pretraining.md). This
took 450 s of processor time for each training on two CPU cores with AVX512-BF16 (AMD EPYC, TensorFlow 2.21,
mixed_bfloat16).
"""

from tf_simclr.settings import (
    AugmentationConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)


def get_config() -> RunConfig:
    return RunConfig(
        name="continue_photos_cpu",
        checkpoint="runs/cifar10_lars",
        data=DataConfig(dataset="folder", image_size=64),
        augmentation=AugmentationConfig(view_size=48, crop_min_area=0.2, color_jitter_strength=0.5),
        model=ModelConfig(
            resnet_depth=10,
            stem="strided",
            num_groups=3,
            num_proj_layers=2,
            temperature=0.2,
            objective_weight=1.0,
        ),
        optimizer=OptimizerConfig(base_learning_rate=1.0, warmup_epochs=4, weight_decay=1e-4),
        train=TrainConfig(global_batch_size=128, epochs=60, checkpoint_epochs=5),
        eval=EvalConfig(baselines=True),
    )
