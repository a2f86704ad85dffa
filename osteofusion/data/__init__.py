"""What the files say: manifests, cohorts, radiographs, splits."""
