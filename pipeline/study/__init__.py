"""Studies: one question, several settings, the same folds and clips for each; a file per study in `conf/study/`."""
