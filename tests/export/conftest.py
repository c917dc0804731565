"""A small encoder and its export, shared by the tests that only read them."""

import pytest
from exports import make_encoder

from tf_simclr.export import Serving, export_encoder


@pytest.fixture(scope="session")
def encoder():
    return make_encoder()


@pytest.fixture(scope="session")
def exported(encoder, tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("export") / "encoder" / "1"
    return export_encoder(encoder, directory, serving=Serving(batch_sizes=(1, 8, 200)))
