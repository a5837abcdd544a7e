"""How good a generator is: its figures beside those of real images, and a report that shows them."""
