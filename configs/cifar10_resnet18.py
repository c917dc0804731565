"""CIFAR-10 with ResNet-18 as the SimCLR reference trains it.

    python run.py --mode=train_then_eval --config=configs/cifar10_resnet18.py

Hardware: one or more GPUs; others report about 3.3 hours for 1,000 epochs of this network and batch on an A100.
Expected: around 91 % linear top-1 according to the reference's README, 91.7 +- 0.1 % (three seeds) according to an
independent reproduction. We have not run it to the end.
"""

from tf_simclr.settings import AugmentationConfig, DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    return RunConfig(
        name="cifar10_resnet18",
        data=DataConfig(dataset="cifar10", eval_split="test", image_size=32),
        augmentation=AugmentationConfig(color_jitter_strength=0.5, blur_probability=0.0),
        model=ModelConfig(resnet_depth=18, temperature=0.5),
        optimizer=OptimizerConfig(base_learning_rate=1.0, weight_decay=1e-4),
        train=TrainConfig(global_batch_size=512, epochs=1000),
    )
