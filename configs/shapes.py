"""The main job on the embedded data.

    python run.py --mode=train_then_eval

Measured on two CPU cores with AVX512-BF16 (AMD EPYC), TensorFlow 2.21: seeds 0, 1 and 2 reach 93.5, 94.7 and 92.2 %
linear and 94.6, 93.7 and 90.6 % kNN top-1 (untrained encoder: 12.2, 12.2 and 14.0 % linear). They took 8 min 20 s
beside another job, 3 min 31 s and 3 min 56 s, including evaluation and export. Seeds 1 and 2 were measured when
random numbers were drawn by step and position; a run today sees other views of the same distribution.
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
        name="shapes",
        data=DataConfig(dataset="shapes", image_size=32),
        augmentation=AugmentationConfig(
            crop_sampler="uniform_area", crop_min_area=0.4, grayscale_probability=0.4, blur_probability=0.0
        ),
        model=ModelConfig(
            resnet_depth=10,
            stem="strided",
            num_groups=3,
            num_proj_layers=2,
            temperature=0.2,
            objective_weight=1.0,
        ),
        optimizer=OptimizerConfig(base_learning_rate=3.0, warmup_epochs=2),
        train=TrainConfig(global_batch_size=256, epochs=16, checkpoint_epochs=1),
        eval=EvalConfig(baselines=True),
    )
