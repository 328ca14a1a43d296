"""Search a page for the image of a key: other colours, place, size, angle, aspect and reflection.

`search` runs it. `settings` says how much is searched, `page` is what is searched, and `target` a key that is looked for.
First `whole_image` lists what may have been done to the image as a whole, offsets of `video_offsets` among it, whose noise
`estimates` gives. Then `grid` lists hypotheses and their weights, `noise_map` estimates the noise of the whole page,
`matching` correlates a key with it at all places, and `window` tests the best ones again, which `refinement` moves.
`changed_windows` are parts of a page that were changed besides, and `page_parts` those that are searched as pages of their
own. `placement` says where on a page an image lies, `neighbours` whether that can be told from what is near, and `outcome`
what was found and covered. For many keys `index_search` looks at some places only, which `frames` finds from the page alone.
"""
