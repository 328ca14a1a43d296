"""Complete truncated image files, so that the rest of the image can be tested.

`ends` tells whether the end of a file is missing, and `early_end` whether that of a JPEG comes too early. `rows` completes
formats that store rows in order; `padding` those whose decoders go on over bytes that mean nothing; `tiles` JPEG 2000 and
compressed TIFF. `notes` holds what is said of such files.
What is missing is filled with one colour, which the visible area (`media.blank_areas`) leaves out of the test.
"""
