"""From an architecture to a trained model file."""
