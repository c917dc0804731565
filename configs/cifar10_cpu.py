"""CIFAR-10 on a CPU, in two hours of processor time.

    python run.py --mode=train_then_eval --config=configs/cifar10_cpu.py --data_dir=cifar10
    python benchmarks/time_to_accuracy.py --data_dir=cifar10

cifar10/train/CLASS/ and cifar10/test/CLASS/ hold the images; without --data_dir, TFDS downloads them. The second
command does the same and prints the time.

Measured by it on one core each (TensorFlow 2.21, mixed_bfloat16), on JPEG files of quality 75: 80.5, 81.0 and 80.4 %
linear and 75.0, 75.0 and 74.7 % kNN top-1 on the 10,000 test images with seeds 0, 1 and 2 (untrained encoder: 42 and
33 %, raw pixels: 41 and 31 %). With evaluation, export and report, that takes 5,060 s of processor time on an Intel
Xeon with AMX, and 6,927 and 6,929 s on an AMD EPYC with AVX512-BF16 (family 25). docs/performance.md says what each
setting is worth.
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
