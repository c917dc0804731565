"""The main job on the embedded data.

    python run.py --mode=train_then_eval

Measured on two cores of an AMD EPYC with AVX512-BF16, TensorFlow 2.21: in float32, seeds 0, 1 and 2 reach 99.0, 98.7
and 99.0 % linear and 98.0, 98.2 and 98.4 % kNN top-1 (untrained encoder: 12.0, 12.4 and 14.5 % linear); in
mixed_bfloat16, which "auto" chooses there, seed 0 reaches 98.9 and 98.1 %. docs/shapes.md has the times.
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
            view_size=24,
            crop_sampler="uniform_area",
            crop_min_area=0.4,
            grayscale_probability=0.4,
            blur_probability=0.0,
        ),
        model=ModelConfig(
            resnet_depth=10,
            stem="strided",
            num_groups=3,
            num_proj_layers=2,
            temperature=0.2,
            objective_weight=1.0,
        ),
        optimizer=OptimizerConfig(name="muon", base_learning_rate=0.024, warmup_epochs=1, weight_decay=1.0),
        train=TrainConfig(global_batch_size=256, epochs=8, checkpoint_epochs=1),
        eval=EvalConfig(baselines=True),
    )
