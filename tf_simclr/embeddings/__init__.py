"""Works on the embeddings of an archive: `python -m tf_simclr.embeddings FOLDER ACTION`.

Reads the Parquet files of `--mode=embed` only, without TensorFlow, except for a search by an image that is not among
them.
"""
