"""Several processes that share the images of one computation, one for each GPU or for some CPU cores.

The lowest room, whose modules are all for others: `world` (who takes part: `World`, and `ALONE`, who costs nothing;
`Share`, the images that one of them keeps), `join` (how a process finds the others), `launch` (how one starts the
others) and `lost` (the end of all when one has died).

Every process does the same with the same numbers, except that each visits its own images only. Sums over images are
summed over the processes where a pass ends; nothing else of an algorithm knows of them. Numbers that decide what is
done next are those of the first process everywhere.
"""
