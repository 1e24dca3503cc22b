"""The prepared images: class names, splits on disk, batches and their augmentation."""
