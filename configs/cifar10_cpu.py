"""CIFAR-10 on two CPU cores in about an hour.

    python run.py --mode=train_then_eval --config=configs/cifar10_cpu.py --data_dir=cifar10

cifar10/train/CLASS/ and cifar10/test/CLASS/ hold the images; without --data_dir, TFDS downloads them.

Measured, seed 0, on two CPU cores with AVX512-BF16 (AMD EPYC, TensorFlow 2.21, mixed_bfloat16): 74.4 % linear and
70.4 % kNN top-1 on the 10,000 test images (untrained encoder: 38.7 and 32.4 %, raw pixels: 41.3 and 30.9 %), in 69 min
57 s, of which the training took 65 min 42 s at 686 images/s. Other work shared the cores; alone on them it runs at 810
to 900 images/s. The images were JPEG files of quality 75.
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
        optimizer=OptimizerConfig(base_learning_rate=3.0, warmup_epochs=1, weight_decay=1e-4),
        train=TrainConfig(global_batch_size=512, epochs=54, checkpoint_epochs=2),
        eval=EvalConfig(baselines=True),
    )
