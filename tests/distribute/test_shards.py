"""Embedding on several machines: the commands of the Kubernetes job and of the Slurm array name every part once."""

import os
import re
import subprocess

import yaml
from absl import flags
from paths import ROOT

from tf_simclr.settings import RunConfig, command_line


def shards(command, folder, variables):
    """The `--shard` that a command gives to run.py, with every set of variables; the flags are those of run.py."""
    (folder / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    (folder / "srun").write_text('#!/bin/sh\nexec "$@"\n', encoding="utf-8")
    for program in ("python", "srun"):
        (folder / program).chmod(0o755)
    found = []
    for extra in variables:
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", **extra}
        done = subprocess.run(command, env=environment, cwd=folder, text=True, check=True, capture_output=True)
        values = flags.FlagValues()
        command_line.define(values)
        assert values(done.stdout.splitlines()) == ["run.py"]
        config = command_line.to_config(
            values, ROOT, names={}, read_run=lambda folder: None, read_checkpoint=lambda path: RunConfig()
        )
        assert config.mode == "embed" and config.embed.output_dir == "/shared/embeddings"
        found.append(config.embed.shard)
    return found


def test_the_pods_of_the_job_embed_every_part(tmp_path):
    job = yaml.safe_load((ROOT / "deploy" / "embedding.yaml").read_text(encoding="utf-8"))
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completionMode"] == "Indexed" and spec["parallelism"] <= spec["completions"]
    assert spec["backoffLimitPerIndex"] and spec["template"]["spec"]["restartPolicy"] == "Never"  # Which it asks for.
    count = spec["completions"]
    variables = [{"JOB_COMPLETION_INDEX": str(i)} for i in range(count)]
    found = shards([*container["command"], *container["args"]], tmp_path, variables)
    assert found == [f"{i}/{count}" for i in range(count)]


def test_the_tasks_of_the_array_embed_every_part(tmp_path):
    page = (ROOT / "docs" / "several-machines.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```sh\n(#!/bin/bash\n#SBATCH --array.*?)^```", page, re.DOTALL | re.MULTILINE)
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", script).groups())
    count = last - first + 1
    variables = [{"SLURM_ARRAY_TASK_ID": str(i), "SLURM_ARRAY_TASK_COUNT": str(count)} for i in range(first, last + 1)]
    found = shards(["bash", "-c", script], tmp_path, variables)
    assert found == [f"{i}/{count}" for i in range(count)]
