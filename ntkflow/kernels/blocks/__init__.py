"""in_blocks: kernels of data that do not fit, in tiles of bounded memory, over the local devices.

From the outside in: `door` is what is called, `call` takes the kernel's arguments apart, `plan`
finds the size of a tile, `tiles` computes them all, `places` and `folder` are where they go.
"""

from ntkflow.kernels.blocks.door import in_blocks as in_blocks
