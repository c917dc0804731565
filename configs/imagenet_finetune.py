"""Fine-tuning on a tenth or a hundredth of ImageNet's labels, as in the SimCLR paper (appendix B.5).

    python run.py --config=configs/imagenet_finetune.py --checkpoint=PRETRAINED
    python run.py --config=configs/imagenet_finetune.py --checkpoint=PRETRAINED \\
      --dataset=imagenet2012_subset/1pct --train_epochs=60

PRETRAINED is a run of configs/imagenet_resnet50.py or a published checkpoint of the reference. The whole network learns
from crops and flips alone, by SGD with Nesterov momentum, without warm-up or weight decay.

Hardware: large GPUs or TPU cores for the batch of 4,096. Expected: 65.6 % top-1 for a tenth and 48.3 % for a hundredth,
according to the paper. We have not run it to the end.
"""

from tf_simclr.settings import DataConfig, FinetuneConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    return RunConfig(
        name="imagenet_finetune",
        mode="train_then_eval",
        train_mode="finetune",
        checkpoint="runs/imagenet_resnet50",
        data=DataConfig(dataset="imagenet2012_subset/10pct"),
        finetune=FinetuneConfig(zero_init=True),
        optimizer=OptimizerConfig(name="momentum", base_learning_rate=0.05, warmup_epochs=0, weight_decay=0.0),
        train=TrainConfig(global_batch_size=4096, epochs=30),
    )
