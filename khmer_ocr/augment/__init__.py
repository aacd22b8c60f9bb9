"""How it is worn: recipes, fused kernels, batched kornia."""
