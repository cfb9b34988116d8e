"""A model put to use: answers to one question or to a file of them."""
