"""How good a generator is: its figures, those of real images for comparison, and a report that shows both."""
