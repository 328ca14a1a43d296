"""The embedded model `landscape`: weights in the diffusers layout, and a model card."""
