"""SimCLR v2 on ImageNet with ResNet-50: pretrain, fine-tune on 1 and 10 % of the labels, distill to all images.

    python run.py --config=configs/simclr_v2_imagenet.py --model_dir=runs/simclr_v2

TFDS must have prepared imagenet2012 and imagenet2012_subset, whose shares of the labels are the reference's. The same
command continues what was interrupted. --set=STAGE.section.field=value changes one stage: the paper's best results
have a larger teacher, --set=finetune_1.model.resnet_depth=152 and so on, and then a temperature of 1.

The settings are the paper's (SimCLR v2, section 3.1 and appendix D); it does not say from which weights the student
starts, and here these are the pretrained ones. Hardware: 32 to 128 TPU v3 cores or as many large GPUs. Expected for
this network, according to the paper (figure 6, some of it read off the plot): 57.9 % top-1 fine-tuned on 1 % of the
labels and 60.0 % self-distilled; 68.4 and 70.5 % with 10 %. We have not run it.
"""

import dataclasses

from tf_simclr.settings import (
    DataConfig,
    DistillConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)

# The share of the labels in percent: epochs of fine-tuning on it.
EPOCHS = {1: 60, 10: 30}


def get_stages() -> dict[str, RunConfig]:
    pretrain = RunConfig(
        mode="train_then_eval",
        data=DataConfig(dataset="imagenet2012", image_size=224),
        model=ModelConfig(
            resnet_depth=50, num_proj_layers=3, temperature=0.1, online_classifier=False, memory_size=65536
        ),
        optimizer=OptimizerConfig(
            base_learning_rate=0.1, learning_rate_scaling="sqrt", warmup_epochs=40, weight_decay=1e-4
        ),
        train=TrainConfig(global_batch_size=4096, epochs=800),
    )
    stages = {"pretrain": pretrain}
    for percent, epochs in EPOCHS.items():
        few = dataclasses.replace(
            pretrain,
            checkpoint="pretrain",
            data=dataclasses.replace(pretrain.data, label_percent=percent),
            model=dataclasses.replace(pretrain.model, classifier_layer=1, memory_size=None),
            finetune=FinetuneConfig(zero_init=True),
        )
        stages[f"finetune_{percent}"] = dataclasses.replace(
            few,
            train_mode="finetune",
            optimizer=OptimizerConfig(
                base_learning_rate=0.005, learning_rate_scaling="sqrt", warmup_epochs=0, weight_decay=0.0
            ),
            train=TrainConfig(global_batch_size=1024, epochs=epochs),
        )
        stages[f"distill_{percent}"] = dataclasses.replace(
            few,
            train_mode="distill",
            finetune=FinetuneConfig(),  # LARS adapts a student's classifier, which must not start at zero.
            distill=DistillConfig(teacher=f"finetune_{percent}", temperature=0.1),
            optimizer=dataclasses.replace(pretrain.optimizer, warmup_epochs=20),
            train=TrainConfig(global_batch_size=4096, epochs=400),
        )
    return stages
