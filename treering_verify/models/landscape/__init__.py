"""The embedded model: its weights, the scenes that it was trained on, its recipe and its quality figures."""
