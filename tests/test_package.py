"""The names of the package, which are loaded when they are used."""

import subprocess
import sys

import pytest
from paths import ROOT

import tf_simclr


def test_every_public_name_and_module_is_there():
    assert set(tf_simclr._HOMES) == set(tf_simclr.__all__) <= set(dir(tf_simclr))
    for name in tf_simclr.__all__:
        assert getattr(tf_simclr, name).__name__ == name
    with pytest.raises(AttributeError, match="'tf_simclr' has no attribute 'SimCLRv3'"):
        tf_simclr.SimCLRv3  # noqa: B018


def test_modules_need_no_import_of_their_own():
    code = "import tf_simclr; print(tf_simclr.losses.DCL.__name__, tf_simclr.augment.simclr_chain.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "DCL simclr_chain\n"


@pytest.mark.parametrize("modules", ("compare", "report.__main__", "embeddings.__main__, tf_simclr.embeddings.page"))
def test_what_reads_finished_files_starts_without_tensorflow(modules):
    """Loading that takes longer than the work, and says things on the terminal."""
    code = f"import sys, tf_simclr.{modules}; sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
