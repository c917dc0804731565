"""CIFAR-10 on a CPU, in two hours of processor time.

    python run.py --mode=train_then_eval --config=configs/cifar10_cpu.py --data_dir=cifar10
    python benchmarks/time_to_accuracy.py --data_dir=cifar10

cifar10/train/CLASS/ and cifar10/test/CLASS/ hold the images; without --data_dir, TFDS downloads them. The second
command does the same and prints the time.

Measured by it, seed 0, on two cores of an AMD EPYC with AVX512-BF16 (family 25, TensorFlow 2.21, mixed_bfloat16), on
JPEG files of quality 75: 80.4 % linear [79.6, 81.2] and 75.0 % kNN [74.2, 75.9] top-1 on the 10,000 test images
(untrained encoder: 42.3 and 33.3 %, raw pixels: 41.4 and 30.9 %) in 7,351 s of processor time, evaluation, export and
report included, which took 67 min beside a few short jobs. docs/performance.md says what each setting is worth.
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
            resnet_depth=18,
            stem="strided",
            num_groups=3,
            final_width=1024,
            num_proj_layers=2,
            proj_hidden_dim=256,
            temperature=0.2,
            objective_weight=1.0,
        ),
        optimizer=OptimizerConfig(name="muon", base_learning_rate=0.024, warmup_epochs=1, weight_decay=0.065),
        train=TrainConfig(global_batch_size=256, epochs=31, checkpoint_epochs=2),
        eval=EvalConfig(baselines=True),
    )
