"""A solution of ex11_encode."""


def encode(vectors, codebooks):
    """Return what the exercise asks for."""
    pieces = vectors.reshape(len(vectors), len(codebooks), -1)
    gaps = pieces[:, :, None, :] - codebooks[None]
    return (gaps**2).sum(axis=-1).argmin(axis=-1)
