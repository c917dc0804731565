"""A folder of a few thousand photographs on two CPU cores.

    python run.py --mode=train_then_eval --config=configs/photos_cpu.py --data_dir=flowers

The subfolders, if any, are the classes. Only the evaluation uses them.

Measured, seed 0, on 4,317 photographs of five kinds of flowers (docs/your-own-images.md): 65.0 % linear and 62.9 % kNN
top-1 on 448 held-out ones (untrained encoder: 52.5 and 45.5 %, raw pixels: 46.0 and 31.2 %). This took 71 minutes of
processor time on two CPU cores with AVX512-BF16 (AMD EPYC, TensorFlow 2.21, mixed_bfloat16), shared with other work.
The views were drawn before every operator had random numbers of its own; a run today sees others like them.
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
        name="photos_cpu",
        data=DataConfig(dataset="folder", image_size=96),
        augmentation=AugmentationConfig(crop_min_area=0.2, color_jitter_strength=0.5),
        model=ModelConfig(resnet_depth=18, num_proj_layers=2, temperature=0.2, objective_weight=1.0),
        optimizer=OptimizerConfig(base_learning_rate=3.0, warmup_epochs=4, weight_decay=1e-4),
        train=TrainConfig(global_batch_size=128, epochs=60, checkpoint_epochs=5),
        eval=EvalConfig(baselines=True),
    )
