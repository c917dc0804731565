"""A folder of a few thousand photographs on two CPU cores.

    python run.py --mode=train_then_eval --config=configs/photos_cpu.py --data_dir=flowers

The subfolders, if any, are the classes. Only the evaluation uses them.

Measured, seed 0, on 4,317 photographs of five kinds of flowers (docs/your-own-images.md): 79.9 % linear [76.1, 83.5]
and 75.2 % kNN [71.2, 79.0] top-1 on 448 held-out ones (untrained encoder: 55.6 and 47.3 %, raw pixels: 46.2 and
31.2 %). All of it took 1,437 s of processor time on one core of an AMD EPYC with AVX512-BF16 (TensorFlow 2.21,
mixed_bfloat16), while another run had the other one. For larger photographs, raise data.image_size and
augmentation.view_size together: 96 and 72 px cost a little more than twice as much. For another number of images or
epochs, choose the weight decay anew; --mode=check says how.
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
        data=DataConfig(dataset="folder", image_size=64),
        augmentation=AugmentationConfig(view_size=48, crop_min_area=0.2, color_jitter_strength=0.5),
        model=ModelConfig(
            resnet_depth=10,
            stem="strided",
            num_groups=3,
            num_proj_layers=2,
            temperature=0.2,
            objective_weight=1.0,
        ),
        optimizer=OptimizerConfig(name="muon", base_learning_rate=0.024, warmup_epochs=4, weight_decay=0.3),
        train=TrainConfig(global_batch_size=128, epochs=80, checkpoint_epochs=5),
        eval=EvalConfig(baselines=True),
    )
