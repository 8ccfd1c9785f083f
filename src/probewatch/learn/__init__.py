"""From float32 to a bundle: training and evaluation. The only folder that imports torch."""
