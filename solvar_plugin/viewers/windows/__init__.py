"""The windows of the viewers: forms, what their entries open, and other programs."""
