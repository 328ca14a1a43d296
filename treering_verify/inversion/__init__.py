"""Inversion: image x -> latent z_0 (decoder inversion) -> noise estimate z_T (noise inversion), without the prompt.

`recovery` runs both halves as its `InversionOptions` say and leaves out occluded areas; `decoder` holds the methods from
image to latent, and `noise` those from latent to noise. Nothing here knows a key.
"""
