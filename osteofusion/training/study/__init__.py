"""Studies: arms, folds, repeats and variants, each cell an ordinary run."""
