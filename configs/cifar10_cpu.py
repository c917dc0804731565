"""CIFAR-10 in about an hour on two CPU cores.

python run.py --mode=train_then_eval --config=configs/cifar10_cpu.py --data_dir=FOLDER
"""

from tf_simclr.config import (
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
        name="cifar10_cpu",
        data=DataConfig(dataset="cifar10", eval_split="test", image_size=32),
        augmentation=AugmentationConfig(crop_min_area=0.2, color_jitter_strength=0.5, blur_probability=0.0),
        model=ModelConfig(
            resnet_depth=10,
            stem="strided",
            num_groups=3,
            num_proj_layers=2,
            temperature=0.2,
            objective_weight=1.0,
        ),
        optimizer=OptimizerConfig(base_learning_rate=1.5, warmup_epochs=1, weight_decay=1e-4),
        train=TrainConfig(global_batch_size=512, epochs=60, checkpoint_epochs=2),
        eval=EvalConfig(baselines=True),
    )
