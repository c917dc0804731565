"""The settings of `--mode=embed`."""

import dataclasses
import functools
import re
from typing import Literal

from tf_simclr.settings.declaration import expand_paths, setting
from tf_simclr.settings.rules import Rule

_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")


def _is_shard(text: str) -> bool:
    found = _SHARD.fullmatch(text)
    return found is not None and int(found[1]) < int(found[2])


# Nothing that a run learns depends on them.
_of_embed = functools.partial(setting, resumable=True, card="leave_out")


@dataclasses.dataclass(frozen=True)
class EmbedConfig:
    """Embeddings of all images, in Parquet files."""

    output_dir: str | None = _of_embed(None, "Folder for the embeddings.", flag="output_dir", is_path=True)
    encoder: str | None = _of_embed(
        None, "Another run, checkpoint or SavedModel to embed with, as in eval.compare_encoders; none takes this run.",
        flag="embed_encoder", is_path=True,
    )  # fmt: skip
    dtype: Literal["float32", "float16"] = _of_embed("float32", "Type of the numbers.", flag="embed_dtype")
    shard: str = _of_embed(
        "0/1", "i/n embeds the i-th of n parts of the images, from 0; the hash of an image's path decides on its part.",
        rule=Rule("i/n with 0 <= i < n", _is_shard), flag="shard",
    )  # fmt: skip

    def __post_init__(self) -> None:
        expand_paths(self)

    @property
    def part(self) -> tuple[int, int]:
        """(i, n) of `shard`."""
        number, count = self.shard.split("/")
        return int(number), int(count)
