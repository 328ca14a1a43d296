"""Options that several commands share, one module a topic, and the types of their values.

* `types`: names with choices, completion and guesses; alpha; attacks; files and folders that are checked at once.
* `keys`: key files, and the pattern of new keys. `images`: the images to judge. `verdicts`: alpha, format, exit code.
* `model`: which model, and how it is computed. `generation`: steps, guidance, prompt. `inversion`: how noise is estimated.
* `detector`: the exact test or a calibrated detector, and what is searched for.
* `judging`: all of these, for the commands that judge a few images.

Each module's decorators give the command's function one value per topic, such as `model: ModelSource`.
"""
