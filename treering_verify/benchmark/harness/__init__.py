"""What the benchmarks share.

`scope` says how much is measured and gives each benchmark its seeds. `cache` keeps measurements, and `workers` shares them
among processes. `keyed_images` and `unmarked_images` make the images, `conditions` processes them, `trials` judges them,
`rates` turns scores into rates, and `image_quality` compares images. For decoder inversion, `inversion_methods` lists the
methods compared, `inversion_paths` follows one, `laboratory` inverts one set of images by all, and `memory` measures peaks.
"""
