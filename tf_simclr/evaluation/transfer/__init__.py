"""The transfer suite: the paper's twelve data sets, each judged by linear evaluation of the frozen encoder."""
