"""From the text of an answer to a tree: tokens, units and words, and the parser."""
