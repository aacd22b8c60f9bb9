"""The ops of recipes as batched torch and kornia, each on a padded batch of lines."""
