"""CIFAR-10 on two CPU cores in a little more than an hour.

    python run.py --mode=train_then_eval --config=configs/cifar10_cpu.py --data_dir=cifar10

cifar10/train/CLASS/ and cifar10/test/CLASS/ hold the images; without --data_dir, TFDS downloads them.

Measured, seed 0, on two CPU cores with AVX512-BF16 (AMD EPYC, TensorFlow 2.21, mixed_bfloat16): 75.0 % linear and
71.7 % kNN top-1 on the 10,000 test images (untrained encoder: 38.6 and 32.4 %, raw pixels: 41.2 and 30.9 %). This took
2 h 3 min beside other jobs, or 139 min of processor time, including evaluation and export. With the cores to itself, it
trains at 690 to 740 images/s, or 60 epochs in about 70 min. The images were JPEG files of quality 75.
The views were drawn before every operator had random numbers of its own; a run today sees others like them.
With --train_epochs=20, seed 0, today's views: 70.8 % linear [69.8, 71.6] and 65.9 % kNN, after 54 min of processor time
with evaluation and export.

Views of 24 px for images of 32 px take two thirds of the time (docs/performance.md).
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
        name="cifar10_cpu",
        data=DataConfig(dataset="cifar10", eval_split="test", image_size=32),
        augmentation=AugmentationConfig(
            view_size=24, crop_min_area=0.2, color_jitter_strength=0.5, blur_probability=0.0
        ),
        model=ModelConfig(
            resnet_depth=10,
            stem="strided",
            num_groups=3,
            num_proj_layers=2,
            temperature=0.2,
            objective_weight=1.0,
        ),
        optimizer=OptimizerConfig(base_learning_rate=3.0, warmup_epochs=1, weight_decay=1e-4),
        train=TrainConfig(global_batch_size=256, epochs=60, checkpoint_epochs=2),
        eval=EvalConfig(baselines=True),
    )
