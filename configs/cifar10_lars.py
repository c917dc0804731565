"""CIFAR-10 on two CPU cores by the paper's optimizer, in about an hour; configs/cifar10_cpu.py is better.

    python run.py --mode=train_then_eval --config=configs/cifar10_lars.py --data_dir=cifar10
    python benchmarks/time_to_accuracy.py --config=configs/cifar10_lars.py --data_dir=cifar10

cifar10/train/CLASS/ and cifar10/test/CLASS/ hold the images; without --data_dir, TFDS downloads them. The second
command does the same and prints the time.

Measured by it, seed 0, on two cores of an Intel Xeon with AMX (TensorFlow 2.21, mixed_bfloat16), on JPEG files of
quality 75: 75.1 % linear [74.2, 75.9] and 71.6 % kNN [70.8, 72.5] top-1 on the 10,000 test images (untrained encoder:
39.6 and 32.4 %, raw pixels: 41.4 and 30.9 %) in 5,263 s of processor time, evaluation, export and report included. This
took 52 min beside other jobs; it trained at 1,060 to 1,190 images/s when it had the cores to itself. On two cores of an
AMD EPYC with AVX512-BF16, before kernels' gradients were matrix products (docs/performance.md), the same took 8,349 s
of processor time for 75.0 and 71.7 %, at 690 to 740 images/s.

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
        name="cifar10_lars",
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
