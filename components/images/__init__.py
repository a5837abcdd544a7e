"""A dataset of images, fixed as a snapshot that every other step reads."""
