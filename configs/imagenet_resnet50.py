"""ImageNet with ResNet-50 for 100 epochs, as in the SimCLR paper.

    python run.py --mode=train --config=configs/imagenet_resnet50.py

Hardware: 32 to 128 TPU v3 cores (add --use_tpu) or as many large GPUs; the paper reports 1.5 hours on 128 cores.
Expected: 64.5 % linear top-1, according to the paper and the reference. We have not run it to the end.
"""

from tf_simclr.settings import DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    return RunConfig(
        name="imagenet_resnet50",
        data=DataConfig(dataset="imagenet2012", image_size=224),
        model=ModelConfig(resnet_depth=50, num_proj_layers=2, temperature=0.1),
        optimizer=OptimizerConfig(base_learning_rate=0.075, learning_rate_scaling="sqrt", weight_decay=1e-4),
        train=TrainConfig(global_batch_size=4096, epochs=100),
    )
