"""SimCLR v2 in small: pretrain, fine-tune on 1 and 10 % of the labels, distill to all images. On two CPU cores.

    python run.py --config=configs/simclr_v2_semi_supervised.py
    python run.py --config=configs/simclr_v2_semi_supervised.py --data_dir=cifar10 \\
      --set=augmentation.crop_min_area=0.2 --set=augmentation.grayscale_probability=0.2

The first command takes the embedded data; in the second, cifar10/train/CLASS/ and cifar10/test/CLASS/ hold images. The
same command continues what was interrupted, in whichever stage. Every stage is a run of its own in a folder below
--model_dir; flags change all of them, and --set=STAGE.section.field=value changes one.

Fine-tuning and distillation are self-distillation of one network: the student has the teacher's architecture and starts
from the pretrained weights, as the teacher did. The supervised stages, from random weights on the same labels, are what
the others are compared with. No training sees another label than its share: the pretraining has no online
classifier.

The paper (SimCLR v2, section 3) fine-tunes from the first layer of a three-layer head with LARS, a learning rate of
0.005 sqrt(B), no warm-up and no decay, for 60 epochs on 1 % and 30 on 10 % of ImageNet, and distills for 400 epochs at
temperature 0.1. The recipe of the fine-tuning is the paper's here as well, apart from the number of epochs: on 100 and
1,000 images, as few epochs would be too few steps.

The distillation takes AdamW in place of the paper's LARS, and a temperature of 1 in place of 0.1, which makes the
teacher's answers nearly certain, and gradients ten times as large.

Measured by the second command, seed 0, on all of CIFAR-10 (JPEG files of quality 75), on two cores of an AMD EPYC with
AVX512-BF16 beside other jobs, 46 minutes; top-1 on the 10,000 test images with 95 % intervals over these:

    stage          labels  judged by           top-1 accuracy     from scratch: difference
    pretrain       none    linear, all labels  70.8 [69.9, 71.7]
    supervised_1   1 %     its classifier      40.9 [39.9, 41.8]
    finetune_1     1 %     its classifier      58.1 [57.1, 59.0]  +17.2 [+16.0, +18.4]
    distill_1      1 %     its classifier      59.6 [58.6, 60.5]  +18.7 [+17.6, +19.8]
    supervised_10  10 %    its classifier      67.1 [66.2, 68.0]
    finetune_10    10 %    its classifier      69.9 [69.0, 70.8]  +2.9 [+1.9, +3.8]
    distill_10     10 %    its classifier      70.8 [69.9, 71.6]  +3.7 [+2.8, +4.6]

Each step gains. The students are better than their teachers by 1.5 points [1.0, 2.1] and 0.8 [0.3, 1.3], by
python -m tf_simclr.compare on the folders of the two.
"""

import dataclasses

from tf_simclr.settings import (
    AugmentationConfig,
    DataConfig,
    DistillConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)

# The share of the labels in percent: epochs of training on it.
EPOCHS = {1: 300, 10: 60}


def get_stages() -> dict[str, RunConfig]:
    pretrain = RunConfig(
        mode="train_then_eval",
        data=DataConfig(dataset="shapes", eval_split="test", image_size=32),
        augmentation=AugmentationConfig(
            view_size=24,
            crop_sampler="uniform_area",
            crop_min_area=0.4,
            color_jitter_strength=0.5,
            grayscale_probability=0.4,
            blur_probability=0.0,
        ),
        model=ModelConfig(
            resnet_depth=10,
            stem="strided",
            num_groups=3,
            num_proj_layers=3,
            temperature=0.2,
            objective_weight=1.0,
            online_classifier=False,
        ),
        optimizer=OptimizerConfig(name="muon", base_learning_rate=0.024, warmup_epochs=1, weight_decay=0.01),
        train=TrainConfig(global_batch_size=256, epochs=8),
    )
    return {"pretrain": pretrain} | {
        name: config for percent in EPOCHS for name, config in _stages_of(pretrain, percent).items()
    }


def _stages_of(pretrain: RunConfig, percent: int) -> dict[str, RunConfig]:
    """The stages that see so many percent of the labels."""
    labelled = dataclasses.replace(
        pretrain,
        data=dataclasses.replace(pretrain.data, label_percent=percent),
        augmentation=dataclasses.replace(pretrain.augmentation, view_size=None),
        model=dataclasses.replace(pretrain.model, classifier_layer=1),
        finetune=FinetuneConfig(zero_init=True),
        optimizer=OptimizerConfig(
            base_learning_rate=0.005, learning_rate_scaling="sqrt", warmup_epochs=0, weight_decay=0.0
        ),
        train=TrainConfig(global_batch_size=64, epochs=EPOCHS[percent], checkpoint_epochs=20),
    )
    supervised = dataclasses.replace(
        labelled,
        train_mode="supervised",
        model=dataclasses.replace(pretrain.model, num_proj_layers=0),
        optimizer=OptimizerConfig(name="momentum", base_learning_rate=0.2, warmup_epochs=1, weight_decay=1e-4),
    )
    distill = dataclasses.replace(
        labelled,
        train_mode="distill",
        checkpoint="pretrain",
        distill=DistillConfig(teacher=f"finetune_{percent}", temperature=1.0),
        optimizer=OptimizerConfig(
            name="adamw", base_learning_rate=1e-3, learning_rate_scaling="none", warmup_epochs=1, weight_decay=1e-4
        ),
        train=TrainConfig(global_batch_size=256, epochs=8),
    )
    return {
        f"supervised_{percent}": supervised,
        f"finetune_{percent}": dataclasses.replace(labelled, train_mode="finetune", checkpoint="pretrain"),
        f"distill_{percent}": distill,
    }
