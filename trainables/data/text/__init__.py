"""Text classification: the tasks of GLUE, tokenised once and batched by length.

What a network of text takes, everywhere: **one int32 tensor (B, 2, L)**. Row 0 of a sample holds its token ids, with 0
(always `[PAD]`, which is checked) behind its last token; row 1 holds its segment ids, 0 for the first text and for the
padding, 1 for the second text. The attention mask is `inputs[:, 0] != 0`. L is the length of the batch's longest
sample, rounded up to a multiple of 8.

Importing this package, or `trainables.data.text.glue`, imports no torch: a plan is checked without.
"""
