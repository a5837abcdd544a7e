"""How good a generator is: figures with their floors and ceilings, and a page that shows them."""
