"""New rows: their cluster, whether they are novel, whether a batch has drifted."""
