"""Volumes of states of a finished run, and the latent space that they are places in.

`reconstruct` goes from `latent_space` over `choice` (which states; `points` reads those of a table) to `kernel_problem`
(images less what the model explains; `particles` are where they come from) and `kernel_volumes`; `plan` says what that
needs, `checkpoint` what of it is done, `files` how all is called. `analyze` uses `latent_space`, too.
"""
