"""Language models read from their weights: SwiGLU models made bilinear, and bilinear transformers.

Needs the extra ``language``: ``pip install "rlbilinear[language]"``. Importing this package loads
nothing; each module loads what it needs.
"""

if __name__ != "rlbilinear.language":
    raise ImportError("import this package as `rlbilinear.language`, not as `language`")
