"""Read what the headers of image files say, without decoding pixels.

`tiff_directory`, `jpeg_segments`, `png_chunks`, `riff_chunks` (WebP) and `isobmff` (AVIF, HEIC, JPEG 2000, JPEG XL)
follow the structure of their formats; those of JPEG and PNG also repair what viewers ignore. `part_counts` counts
what Pillow reads one by one, `jpeg_scans` the bits of a JPEG that tell something about its image, and
`declared_sizes` reads sizes that Pillow checks only while it decodes.
"""
