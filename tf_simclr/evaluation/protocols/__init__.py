"""Ways to judge representations, one module each; see `tf_simclr.evaluation.scores.Protocol`."""
