"""What the benchmarks share.

`scope` says how much is measured and gives each benchmark its seeds. `cache` keeps measurements, and `workers` shares them
among processes. `keyed_images` and `unmarked_images` make the images, `conditions` processes them, `trials` judges them,
`rates` turns scores into rates, and `image_quality` compares images. For decoder inversion, `inversion_methods` lists the
methods compared, `inversion_paths` follows one, `laboratory` inverts one set of images by all, and `memory` measures peaks.
`resized_pages` and `shared_images` do what people do to images, the latter in the order of `shared_chains`. `provenance`
says where a result comes from, `code_digests` of what code it is, and `interruption` reports what a stopped run has
measured.
"""
