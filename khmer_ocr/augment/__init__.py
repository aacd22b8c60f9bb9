"""How it is augmented: recipes, fused kernels, batched kornia."""
