"""Image and video files to arrays and back. Files are untrusted, so each is checked before and while it is decoded.

`images` reads a file once and decodes it to 8-bit sRGB; `conversion` fits that to a model's size, makes the (1, 3, H,
W) tensor in [-1, 1], and writes PNG files. `formats` tells the kind of a file by its first bytes; `decoder_limits`
finds files that would cost a decoder hours, by what their `headers` say; `array_decoders` decodes what Pillow is slow
at or reads wrongly. `isolation` decodes what is not cheap in a process of its own. `truncated` completes files that
were cut short; `color_modes` converts every mode of Pillow to sRGB. `arrays` takes arrays and tensors, `animations`
chooses frames, and `containers` reads images in archives, after `archive_checks`, and in columns. `digests` names
content by SHA-256. `compression` counts the bits that a lossy format left an image. `videos` does for videos what
`images` does for images; `frame_folders` lists a folder of frames. `blank_areas` finds occluded areas of an image,
fills them before the inversion and masks them after it.
"""
