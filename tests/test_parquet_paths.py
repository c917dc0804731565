"""Parquet files at paths of any bytes."""

import os

import pyarrow as pa

from tf_simclr import parquet


def test_a_path_that_is_not_utf8(tmp_path):
    path = os.path.join(tmp_path, os.fsdecode(b"caf\xe9.parquet"))
    table = pa.table({"name": ["a", None], "value": [1.5, 2.0]}).replace_schema_metadata({b"key": b"text"})
    parquet.write(path, table)
    plain = tmp_path / "plain.parquet"
    parquet.write(plain, table)
    assert parquet.read(path).equals(table)
    assert parquet.open_file(path).num_row_groups == 1
    assert parquet.read(f"file://{plain}").equals(table)
    assert parquet.read_metadata(path)[b"key"] == b"text"
    assert sorted(os.listdir(os.fsencode(tmp_path))) == [b"caf\xe9.parquet", b"plain.parquet"]
