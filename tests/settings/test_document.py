"""What `--help` and docs/settings.md say of every setting."""

import re

from paths import ROOT

from tf_simclr import builders, evaluation
from tf_simclr.settings import SETTINGS, command_line, document


def test_help_names_every_flag_once_and_fits_into_100_columns():
    text = document.help_text(builders.NAMES | evaluation.NAMES)
    assert max(map(len, text.splitlines())) <= 100
    titles = re.findall(r"^(\w+)(?::| run$)", text, re.MULTILINE)
    for section in {one.section for one in SETTINGS.values()} - {""}:
        assert titles.count(section) == 1
    for one in SETTINGS.values():
        name = f"--{one.flag}" if one.flag else f"--set={one.name}=..."
        assert len(re.findall(rf"^  {re.escape(name)}\b|^  {re.escape(name)} ", text, re.MULTILINE)) == 1, name
    for name in [*command_line.SHORTHANDS, *command_line.STALE_FLAGS, *command_line.OTHER_FLAGS]:
        assert len(re.findall(rf"^  --{name}$", text, re.MULTILINE)) == 1, name


def test_help_tells_default_choices_and_rule():
    text = document.help_text({"model.encoder": ("resnet", "another")})
    for expected in (
        "  --train_batch_size  [whole number, at least 2, or none (by --set); default: none]\n      Images per step, ",
        "  --stem  [auto, cifar, strided, imagenet; default: auto]\n",
        "  --train_steps  [whole number, at least 1, or none (0 on the flag); default: none]\n",
        "  --tpu_name, --master  [text, or none; default: none]\n",
        "  --encoder  [resnet, another; default: resnet]\n",
        "  --export_formats  [list of tflite, onnx; default: empty]\n",
    ):
        assert expected in text


def test_the_page_of_the_settings_is_up_to_date():
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == document.markdown(builders.NAMES | evaluation.NAMES), (
        "docs/settings.md is behind the settings: run `make docs`"
    )
